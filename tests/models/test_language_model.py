"""Every family of LLMs by transformers' own classes, with images, aggregators inside, padding and a cache."""

import shutil
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cambrian.artifacts import write_folder, write_json
from cambrian.interfaces import ArtifactError, Batch
from cambrian.models import language_model
from cambrian.models.config import ModelConfig
from cambrian.models.generation import generate
from cambrian.models.language_model import read_language_model
from cambrian.models.multimodal import MultimodalModel
from cambrian.models.torchvision_shim import declare_missing_operators
from cambrian.models.weights import build_model
from cambrian.params import parse_block
from tests.models.conftest import CONNECTORS, VOCABULARY, make_batch, real_logits, take_images

PROMPTS: list[list[int | str]] = [[1, 5, "image", 7], [1, "image", 4, "image", 6], [1, 2], ["image", 11, 12]]
SIZES = [(9, 9), (8, 4), (5, 5), (3, 9)]
IMAGES = [[0], [1, 2], [], [3]]
NO_END = VOCABULARY
SUMS = {"atol": 2e-5, "rtol": 1e-4}  # float32 sums in another order; the largest difference seen is 3e-6


@dataclass(frozen=True)
class Family:
    model_type: str
    prefix: str
    changes: dict[str, Any] = field(default_factory=dict)

    def config(self) -> Any:
        declare_missing_operators()
        module = import_module(f"transformers.models.{self.model_type}.configuration_{self.model_type}")
        return getattr(module, f"{self.prefix}Config")(
            vocab_size=VOCABULARY, hidden_size=24, intermediate_size=32, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            **self.changes,
        )  # fmt: skip

    def model_class(self) -> Any:
        module = import_module(f"transformers.models.{self.model_type}.modeling_{self.model_type}")
        return getattr(module, f"{self.prefix}ForCausalLM")


LLAMA_3_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
FAMILIES = {
    "llama": Family("llama", "Llama"),
    "llama-3.1": Family("llama", "Llama", {"rope_parameters": LLAMA_3_ROPE}),
    "mistral": Family("mistral", "Mistral", {"sliding_window": None}),
    "phi3": Family("phi3", "Phi3"),
    "qwen2": Family("qwen2", "Qwen2"),
    "qwen2-tied": Family("qwen2", "Qwen2", {"tie_word_embeddings": True}),
    "qwen3": Family("qwen3", "Qwen3", {"head_dim": 8}),
}
WINDOWED = {
    "mistral": Family("mistral", "Mistral", {"sliding_window": 6}),
    "phi3": Family("phi3", "Phi3", {"sliding_window": 6}),
    "qwen2": Family("qwen2", "Qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
}


def make_model(family: Family, connector: str, backbones: Path, folder: Path) -> MultimodalModel:
    with torch.random.fork_rng(devices=[]), write_folder(folder / "llm") as partial:
        torch.manual_seed(2)
        family.model_class()(family.config()).save_pretrained(partial)
    shutil.copytree(backbones / "vit", folder / "vit")
    block = {"encoders": ["vit"], "connector": CONNECTORS[connector], "llm": "llm", "template": "turns"}
    model = build_model(parse_block(ModelConfig, block, where="model"), backbones=folder, seed=3).eval()
    model.set_trainable({"connector", "llm"})
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, backbones: Path, tmp_path_factory: pytest.TempPathFactory) -> MultimodalModel:
    return make_model(FAMILIES[request.param], "sva-in-llm", backbones, tmp_path_factory.mktemp(request.param))


def pad_on_the_left(batch: Batch) -> Batch:
    lengths = batch.attention_mask.sum(dim=1).tolist()
    ids, labels, mask = (
        torch.stack([torch.roll(row, len(row) - length) for row, length in zip(part, lengths, strict=True)])
        for part in (batch.input_ids, batch.labels, batch.attention_mask)
    )
    return Batch(ids, labels, mask, batch.images)


def take_sample(model: MultimodalModel, batch: Batch, row: int) -> Batch:
    alone = make_batch(model, PROMPTS[row : row + 1], [])
    alone.images = take_images(batch.images, IMAGES[row]) if batch.images is not None and IMAGES[row] else None
    return alone


def plain_copy(model: MultimodalModel) -> Any:
    """The LLM again, with no hook and no attention of ours."""
    llm = type(model.llm)(type(model.llm.config).from_dict(model.llm.config.to_diff_dict())).eval()
    llm.load_state_dict(model.llm.state_dict())
    return llm


def test_the_llm_is_transformers_own_class(model: MultimodalModel) -> None:
    assert type(model.llm).__module__.startswith("transformers.models.")
    assert type(model.llm.model.layers[0]).forward.__module__ == type(model.llm).__module__


def test_the_loss_teaches_every_parameter_of_llm_and_aggregators(model: MultimodalModel) -> None:
    model.zero_grad()
    model.loss(make_batch(model, PROMPTS, SIZES)).backward()
    parts = {"llm": model.llm, "aggregators": model.aggregators}
    named = {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}
    untaught = [name for name, p in named.items() if p.grad is None or not p.grad.any()]
    assert len(named) > 40
    assert untaught == []


def test_the_side_of_the_padding_changes_no_logits(model: MultimodalModel) -> None:
    batch = make_batch(model, PROMPTS, SIZES)
    for left, right in zip(real_logits(model, pad_on_the_left(batch)), real_logits(model, batch), strict=True):
        torch.testing.assert_close(left, right, **SUMS)


def test_a_batch_generates_what_its_prompts_generate_alone_and_without_a_cache(model: MultimodalModel) -> None:
    batch = make_batch(model, PROMPTS, SIZES)
    together = generate(model, batch, max_new_tokens=4, end_id=NO_END)
    assert generate(model, pad_on_the_left(batch), max_new_tokens=4, end_id=NO_END) == together
    for row, prompt in enumerate(PROMPTS):
        alone = take_sample(model, batch, row)
        assert generate(model, alone, max_new_tokens=4, end_id=NO_END) == [together[row]]
        new: list[int] = []
        for _ in range(4):
            longer = make_batch(model, [[*prompt, *new]], [])
            longer.images = alone.images
            with torch.no_grad():
                new.append(int(model(longer)[0, -1].argmax()))
        assert new == together[row]


def test_aggregators_inside_act_as_in_a_plain_loop_over_the_layers(model: MultimodalModel) -> None:
    batch = make_batch(model, [[1, 5, "image", 7, "image", 3]], [(9, 9), (5, 5)])
    prompt, plain = model.embed(batch), plain_copy(model)
    assert prompt.vision is not None
    hidden, rows = prompt.embeddings, prompt.vision.rows
    positions = torch.arange(hidden.shape[1])[None]
    with torch.no_grad():
        rotation = plain.model.rotary_emb(hidden, position_ids=positions)
        for index, layer in enumerate(plain.model.layers):
            hidden = layer(hidden, position_ids=positions, position_embeddings=rotation)
            if index in (0, 2):  # start 0, stride 2, count 2
                hidden = hidden.clone()
                hidden[0, rows] = model.aggregators[index // 2](hidden[0, rows], prompt.vision.evidence)
        expected = plain.lm_head(plain.model.norm(hidden))
        torch.testing.assert_close(model(batch), expected, **SUMS)


def test_an_llm_that_has_learned_with_images_saves_and_loads_as_any_other(
    model: MultimodalModel, tmp_path: Path
) -> None:
    model.llm.save_pretrained(tmp_path)
    ids = torch.tensor([[1, 5, 9, 3]])
    with torch.no_grad():
        expected = plain_copy(model)(ids).logits
        for loaded in (type(model.llm).from_pretrained(tmp_path), read_language_model(tmp_path)):
            assert type(loaded) is type(model.llm)
            torch.testing.assert_close(loaded.eval()(ids).logits, expected, atol=0.0, rtol=0.0)


@pytest.mark.parametrize("name", WINDOWED)
def test_a_sliding_window_counts_only_what_a_prompt_shows(name: str, backbones: Path, tmp_path: Path) -> None:
    """Padding in a batch and hidden cells of an image lie inside the window of six, and take none of its places."""
    model = make_model(WINDOWED[name], "ldpv2", backbones, tmp_path)
    batch, plain = make_batch(model, PROMPTS, SIZES), plain_copy(model)
    together = generate(model, batch, max_new_tokens=4, end_id=NO_END)
    assert generate(model, pad_on_the_left(batch), max_new_tokens=4, end_id=NO_END) == together
    for row in range(len(PROMPTS)):
        prompt = model.embed(take_sample(model, batch, row))
        assert greedy(plain, prompt.embeddings[prompt.mask][None], 4) == together[row]


def greedy(llm: Any, embeddings: Tensor, num_tokens: int) -> list[int]:
    """Without a mask and without a cache."""
    new: list[int] = []
    with torch.no_grad():
        for _ in range(num_tokens):
            new.append(int(llm(inputs_embeds=embeddings, use_cache=False).logits[0, -1].argmax()))
            embeddings = torch.cat([embeddings, llm.get_input_embeddings()(torch.tensor([new[-1:]]))], dim=1)
    return new


def test_only_the_family_that_is_read_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAMILIES["qwen3"].model_class()(FAMILIES["qwen3"].config()).save_pretrained(tmp_path)
    imported: list[str] = []
    monkeypatch.setattr(language_model, "import_module", lambda name: imported.append(name) or import_module(name))
    read_language_model(tmp_path)
    assert imported == ["transformers.models.qwen3.modeling_qwen3"]


def test_an_unknown_family_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "qwen"})
    with pytest.raises(ArtifactError, match=r"config.json: model_type: unknown name 'qwen'; did you mean 'qwen[23]'\?"):
        read_language_model(tmp_path)
