"""A model of a few thousand weights and two benchmarks of a few items, as the folders that a run is evaluated from."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import save_file

from cambrian.artifacts import write_folder
from cambrian.evaluation.config import EvaluationConfig, PromptConfig
from cambrian.evaluation.runner import evaluate_run
from cambrian.evaluation.subjects import OwnModel
from cambrian.runtime import RuntimeConfig

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL_WORDS = ("<pad>", "<unk>", "<user>", "<end>")
WORDS = ("is", "it", "red", "blue", "what", "colour", "yes", "no", "?", "where", "left", "right")
PROMPT = PromptConfig(
    question="{question}", choice_question="{question}", option="{text}", separator=" ",
    hint_separator="\n", own_wording=False, ocr_tokens=False, max_new_tokens=2,
)  # fmt: skip


def evaluation_config(replies_folder: Path, *, batch_size: int, processes: int = 1) -> EvaluationConfig:
    return EvaluationConfig(
        batch_size=batch_size,
        processes=processes,
        replies_folder=str(replies_folder),
        prompts={"MME-P": PROMPT, "GQA": PROMPT},
    )


def write_tiny_model(
    root: Path, *, connector: dict[str, Any] | None = None, encoders: tuple[str, ...] = ("eye",)
) -> tuple[Path, Path]:
    """Write the folders of a run's model and of its backbones, and return both; without `connector` it is an MLP."""
    from cambrian.models.config import ModelConfig
    from cambrian.models.encoders import EncoderSpec, write_encoder
    from cambrian.models.torchvision_shim import declare_missing_operators
    from cambrian.models.weights import build_model, write_model

    declare_missing_operators()
    import timm
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    backbones, folder = root / "backbones", root / "run"
    arguments = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 0}
    spec = {
        "image": {"side": 16, "mean": [0.5] * 3, "std": [0.5] * 3, "pad_colour": [0, 0, 0]},
        "features": {"layers": [-1], "norm": True},
    }
    for encoder in encoders:
        with write_folder(backbones / encoder) as output:
            write_encoder(
                output,
                timm.create_model("vit_tiny_patch16_224", **arguments),
                architecture="vit_tiny_patch16_224",
                model_args=arguments,
                spec=EncoderSpec.model_validate(spec),
            )
    vocabulary = {word: index for index, word in enumerate((*SPECIAL_WORDS, *WORDS))}
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False, initializer_range=1.0,
    )  # fmt: skip
    with write_folder(backbones / "tongue") as output:
        (output / "config.json").write_text(json.dumps(config.to_dict()))
        save_file(LlamaForCausalLM(config).state_dict(), output / "model.safetensors", {"format": "pt"})
        _write_tokenizer(output, vocabulary)
    mlp = {
        "kind": "mlp", "side": 2, "delivery": "interpolate", "hidden_ratio": 1.0, "position_rms": None,
        "output_rms": 1.0, "newline": False, "hide_padding": False,
    }  # fmt: skip
    stored = ModelConfig.model_validate(
        {"encoders": list(encoders), "connector": connector or mlp, "llm": "tongue", "template": "turns"}
    )
    with write_folder(folder) as output:
        write_model(output, build_model(stored, backbones=backbones, seed=0), stored, {"connector", "llm"})
    return folder, backbones


def write_tiny_benchmarks(root: Path, *, question: str = "what colour ?", cut_pictures_at: int | None = None) -> Path:
    """Write four MME items over two pictures and three GQA items, two of which are the same."""
    pictures = [{"bytes": picture(colour)[:cut_pictures_at], "path": None} for colour in ((255, 0, 0), (0, 0, 255))]
    mme = [
        {
            "question_id": shown,
            "image": image,
            "question": f"is it {asked} ?",
            "answer": "yes" if asked == shown else "no",
            "category": "color",
        }
        for shown, image in zip(("red", "blue"), pictures, strict=True)
        for asked in ("red", "blue")
    ]
    gqa = [
        {"id": str(index), "question": question, "answer": answer, "image": image}
        for index, (answer, image) in enumerate([("red", pictures[0]), ("blue", pictures[1]), ("red", pictures[0])])
    ]
    with write_folder(root / "benchmarks") as output:
        for name, rows in (("MME-P", mme), ("GQA", gqa)):
            (output / name).mkdir()
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), output / name / "test.parquet")
    return root / "benchmarks"


def evaluate(
    model: tuple[Path, Path],
    benchmarks: Path,
    output: Path,
    *,
    batch_size: int = 4,
    processes: int = 1,
    use_images: bool = True,
) -> dict[str, Any]:
    evaluate_run(
        OwnModel(*model),
        benchmarks=benchmarks,
        config=evaluation_config(output / "log", batch_size=batch_size, processes=processes),
        runtime=RuntimeConfig(device="cpu", threads=1),
        use_images=use_images,
        replies_path=output / "replies.parquet",
        scores_path=output / "scores.json",
        run="a-run",
        scale="tiny",
    )
    scores: dict[str, Any] = json.loads((output / "scores.json").read_text())
    return scores


def picture(colour: tuple[int, int, int], *, size: tuple[int, int] = (20, 12)) -> bytes:
    """A PNG of one colour, by default wider than high."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def _write_tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL_WORDS))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>", "eos_token": "<end>"}))
