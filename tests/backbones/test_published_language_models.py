"""Language models in the layout of transformers, one file or many, safetensors or .bin: read strictly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from cambrian.artifacts import write_folder
from cambrian.backbones import pretrained
from cambrian.backbones.config import FolderSource, PretrainedLanguageModel, PublishedLanguageModel
from cambrian.backbones.pretrained import convert_language_model, convert_published_language_model
from cambrian.data.tokenizer import read_tokenizer
from cambrian.interfaces import ArtifactError
from cambrian.models.language_model import build_language_model, read_language_model
from cambrian.models.tensor_files import unique_tensors, write_tensors
from cambrian.release.language_models import LanguageModelRow

if TYPE_CHECKING:
    from pathlib import Path

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 12,
    "max_position_embeddings": 64,
    "rope_theta": 5000.0,
    "rms_norm_eps": 1.0e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PHI3 = {**LLAMA, "model_type": "phi3", "pad_token_id": 0}
QWEN2 = {**LLAMA, "model_type": "qwen2", "tie_word_embeddings": True}


def tensors_of(values: dict[str, Any]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(build_language_model(values).state_dict())


def write_source(folder: Path, values: dict[str, Any], *, layout: str) -> dict[str, torch.Tensor]:
    """Write an LLM as its publisher would, with what older ones carry along."""
    folder.mkdir()
    tensors = tensors_of(values)
    old = {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    (folder / "config.json").write_text(json.dumps(values))
    if layout == "safetensors":
        write_tensors(folder / "model.safetensors", {name: tensor.clone() for name, tensor in old.items()})
    else:
        names = sorted(old)
        halves = [names[::2], names[1::2]]
        weight_map = {}
        for index, half in enumerate(halves, start=1):
            file = f"pytorch_model-{index:05d}-of-00002.bin"
            torch.save({name: old[name].clone() for name in half}, folder / file)
            weight_map |= dict.fromkeys(half, file)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    write_tokenizer_files(folder)
    return tensors


def write_tokenizer_files(folder: Path, **config: str) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = ["<unk>", "<s>", "</s>", *"abcdefghi"]
    Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")).save(
        str(folder / "tokenizer.json")
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "unk_token": "<unk>"} | config))


def convert(source: Path, output: Path, *, dtype: str = "float32") -> Path:
    config = PretrainedLanguageModel.model_validate(
        {"kind": "pretrained-language-model", "source": {"kind": "folder", "path": str(source)}, "dtype": dtype}
    )
    with write_folder(output) as folder:
        convert_language_model(config, folder=folder)
    return output


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("values", [LLAMA, PHI3, QWEN2], ids=["llama", "phi3", "qwen2"])
def test_an_llm_keeps_its_weights_and_answers_as_transformers_does(
    tmp_path: Path, values: dict[str, Any], layout: str
) -> None:
    from transformers import AutoModelForCausalLM

    tensors = write_source(tmp_path / "source", values, layout=layout)
    folder = convert(tmp_path / "source", tmp_path / "out")
    model: Any = read_language_model(folder)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in unique_tensors(model).items())
    assert "model.layers.0.self_attn.rotary_emb.inv_freq" not in load_file(folder / "model.safetensors")
    ids = torch.tensor([[1, 5, 7, 3]])
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "source").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits)
    tokenizer = read_tokenizer(folder)
    assert (tokenizer.pad_id, tokenizer.end_id) == (0, 2)


def test_weights_are_stored_as_the_type_that_is_asked_for(tmp_path: Path) -> None:
    tensors = write_source(tmp_path / "source", LLAMA, layout="bin")
    stored = load_file(convert(tmp_path / "source", tmp_path / "out", dtype="bfloat16") / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert torch.equal(stored["model.norm.weight"], tensors["model.norm.weight"].bfloat16())


def row_of(**changes: Any) -> LanguageModelRow:
    config = {name: value for name, value in LLAMA.items() if not name.endswith("token_id")} | changes
    return LanguageModelRow(checkpoint="a/b", revision=None, padding_token=None, config=config, num_parameters=1)


@pytest.mark.parametrize("changes", [{"hidden_size": 32}, {"rope_theta": 10000.0}, {"vocab_size": 13}])
def test_a_folder_that_is_another_model_than_the_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    write_source(tmp_path / "source", LLAMA, layout="safetensors")
    source = FolderSource(kind="folder", path=str(tmp_path / "source"))
    config = PublishedLanguageModel(kind="published-language-model", row="a", source=source, dtype="float32")
    monkeypatch.setattr(pretrained, "find_language_model", lambda name: row_of())
    with write_folder(tmp_path / "out") as folder:
        convert_published_language_model(config, folder=folder)
    name = "rope_parameters" if "rope_theta" in changes else next(iter(changes))
    monkeypatch.setattr(pretrained, "find_language_model", lambda name: row_of(**changes))
    with pytest.raises(ArtifactError, match=rf"config.json: {name} is .*: it is another model"):
        convert_published_language_model(config, folder=tmp_path)


def spoil(kind: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if kind == "missing":
        del tensors["model.norm.weight"]
    elif kind == "extra":
        tensors["model.vision.weight"] = torch.zeros(1)
    elif kind == "misshapen":
        tensors["model.norm.weight"] = torch.zeros(3)
    write_tensors(path, tensors)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-8])
    elif kind == "no-weights":
        path.unlink()
    elif kind == "no-family":
        (folder / "config.json").write_text(json.dumps({**LLAMA, "model_type": "llamma"}))
    elif kind == "no-end":
        write_tokenizer_files(folder, eos_token="<end>")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"model.norm.weight is missing. It is another model's checkpoint"),
        ("extra", r"model.vision.weight is not part of the model"),
        ("misshapen", r"model.norm.weight has shape \(3,\), the model needs \(16,\)"),
        ("truncated", r"model.safetensors is not a safetensors file"),
        ("no-weights", r"has none of model.safetensors.index.json, .*; it has config.json, tokenizer.json"),
        ("no-family", r"unknown name 'llamma'; did you mean 'llama'"),
        ("no-end", r"the tokenizer ends with '<end>'"),
    ],
)
def test_a_broken_llm_is_refused_by_name_and_leaves_nothing(tmp_path: Path, kind: str, message: str) -> None:
    write_source(tmp_path / "source", LLAMA, layout="safetensors")
    spoil(kind, tmp_path / "source")
    with pytest.raises(ArtifactError, match=message):
        convert(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Code:
    """Something whose unpickling would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must never be printed",)


def test_pickled_code_in_a_shard_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_source(tmp_path / "source", LLAMA, layout="bin")
    torch.save({"model.norm.weight": Code()}, tmp_path / "source" / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(ArtifactError, match="Pickled code is never run"):
        convert(tmp_path / "source", tmp_path / "out")
    assert capsys.readouterr().out == ""
