"""Models of others asked by this runner, and this project's models asked by lmms-eval."""

from __future__ import annotations

import importlib
import io
import json
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from cambrian.evaluation.answering import open_own_model
from cambrian.evaluation.asking import answer
from cambrian.evaluation.foreign import ForeignModel
from cambrian.evaluation.runner import evaluate_run
from cambrian.interfaces import ArtifactError
from cambrian.runtime import RuntimeConfig
from tests.evaluation.tiny import SPECIAL_WORDS, WORDS, evaluation_config, picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}<user> {% for part in message.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
)


def write_tiny_llava(folder: Path, *, is_next: bool = False) -> Path:
    """A LLaVA or LLaVA-NeXT of transformers with random weights and its processor, as its authors publish them."""
    from cambrian.models.torchvision_shim import declare_missing_operators

    declare_missing_operators()
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = (*SPECIAL_WORDS, "<image>", *WORDS)
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    pixels: dict[str, Any] = {
        "size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }  # fmt: skip
    grids = {"image_grid_pinpoints": [[16, 32], [32, 16], [32, 32]]} if is_next else {}
    form = "LlavaNext" if is_next else "Llava"
    images = transformers.LlavaNextImageProcessor if is_next else transformers.CLIPImageProcessor
    processor = getattr(transformers, f"{form}Processor")(
        images(**pixels, **grids), fast, patch_size=8, vision_feature_select_strategy="default", image_token="<image>",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    torch.manual_seed(0)
    vision = transformers.CLIPVisionConfig(
        image_size=16, patch_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2
    )
    text = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=1.0, pad_token_id=0, eos_token_id=3, bos_token_id=None,
    )  # fmt: skip
    config = getattr(transformers, f"{form}Config")(
        vision_config=vision, text_config=text, image_token_index=vocabulary["<image>"], image_seq_length=4, **grids
    )
    getattr(transformers, f"{form}ForConditionalGeneration")(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_model_of_transformers_stands_in_the_same_table(benchmarks: Path, tmp_path: Path) -> None:
    folder = write_tiny_llava(tmp_path / "llava")
    found = []
    for batch_size in (1, 4):
        output = tmp_path / str(batch_size)
        evaluate_run(
            ForeignModel(str(folder), None, "float32"),
            benchmarks=benchmarks,
            config=evaluation_config(output / "log", batch_size=batch_size),
            runtime=RuntimeConfig(device="cpu", threads=1),
            use_images=True,
            replies_path=output / "replies.parquet",
            scores_path=output / "scores.json",
            run="other-llava",
            scale="tiny",
        )
        found.append((output / "replies.parquet").read_bytes())
        scores = json.loads((output / "scores.json").read_text())
        assert [scores["scores"][name]["items"] for name in ("MME-P", "GQA")] == [4, 3]
    assert found[0] == found[1]


def test_the_parts_of_pictures_of_another_shape_share_a_batch(tmp_path: Path) -> None:
    asked = ForeignModel(str(write_tiny_llava(tmp_path / "next", is_next=True)), None, "float32").open("cpu")
    prompts = [
        ("what colour ?", picture((255, 0, 0))),
        ("is it red ?", picture((0, 0, 255), size=(12, 40))),  # two parts above each other, not side by side
        ("where is it ?", picture((0, 255, 0), size=(30, 30))),
        ("what colour ?", None),
    ]
    alone, together = (answer(asked, prompts, batch_size=size, max_new_tokens=3, what="test") for size in (1, 4))
    assert together == alone
    assert len(set(alone.values())) == 4


def test_a_repository_needs_its_commit_and_a_folder_must_hold_a_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="a repository needs its commit: add --revision"):
        ForeignModel("llava-hf/nowhere", None, "float32").find_log(tmp_path, "x", {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="transformers cannot load"):
        ForeignModel(str(tmp_path / "empty"), None, "float32").open("cpu")


@dataclass
class Request:
    """What lmms-eval hands to a model: `args` in the order of its documentation."""

    args: tuple[Any, ...]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The plug-in beside the smallest form of lmms-eval's interface (lmms-eval itself does not go with our pins)."""

    class Base:
        def __init__(self) -> None:
            self.task_dict: dict[str, Any] = {}

    @dataclass
    class ModelManifest:
        model_id: str
        simple_class_path: str

    for name, members in (
        ("lmms_eval", {}),
        ("lmms_eval.api", {}),
        ("lmms_eval.api.model", {"lmms": Base}),
        ("lmms_eval.models", {}),
        ("lmms_eval.models.registry_v2", {"ModelManifest": ModelManifest}),
    ):
        module = types.ModuleType(name)
        for key, value in members.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)
    yield importlib.import_module("cambrian.evaluation.lmms_plugin")
    sys.modules.pop("cambrian.evaluation.lmms_plugin")


def test_a_task_of_lmms_eval_gets_the_replies_of_this_projects_evaluation(
    plugin: Any, model: tuple[Path, Path]
) -> None:
    found = plugin.manifest()
    module, _, name = found.simple_class_path.rpartition(".")
    asked = getattr(sys.modules[module], name)(model=str(model[0]), backbones=str(model[1]), batch_size="2")
    shown = [Image.open(io.BytesIO(picture(colour))) for colour in ((255, 0, 0), (0, 0, 255))]
    asked.task_dict = {"a-task": {"test": [{"image": shown[0]}, {"image": shown[1]}, {"image": None}]}}
    visual = lambda doc: [doc["image"]] if doc["image"] is not None else []  # noqa: E731
    requests = [
        Request(("what colour ?", {"max_new_tokens": 2, "until": ["\n\n"]}, visual, number, "a-task", "test"))
        for number in (2, 0, 1)
    ]
    replies = asked.generate_until(requests)
    prompts = [("what colour ?", image) for image in (None, picture((255, 0, 0)), picture((0, 0, 255)))]
    own = open_own_model(model[0], backbones=model[1], device="cpu")
    expected = answer(own, prompts, batch_size=1, max_new_tokens=2, what="test")
    assert replies == [expected[prompt] for prompt in prompts]
    with pytest.raises(ValueError, match="shows 2 pictures, expected one or none"):
        asked.generate_until([Request(("what ?", {}, lambda doc: shown, 0, "a-task", "test"))])
    with pytest.raises(NotImplementedError, match="choose one that generates"):
        asked.loglikelihood([])
