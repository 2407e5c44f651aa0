from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from cambrian.artifacts import read_manifest
from cambrian.backbones.prepare import prepare_backbone
from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.models.encoders import read_encoder
from cambrian.models.language_model import read_language_model
from tests.backbones.corpora import LANGUAGE_MODEL, OBJECTIVES, RUNTIME, SPEC, encoder_config, parse

if TYPE_CHECKING:
    from pathlib import Path


def prepare(config: dict[str, Any], corpora: Path, output: Path, *, name: str = "example", seed: int = 0) -> Path:
    prepare_backbone(name, parse(config), corpora=corpora, seed=seed, runtime=RUNTIME, output=output)
    return output


def digests(folder: Path) -> dict[str, str]:
    return {name: facts["sha256"] for name, facts in read_manifest(folder)["files"].items()}


def test_an_empty_slot_is_a_folder_with_only_its_manifest(corpora: Path, tmp_path: Path) -> None:
    folder = prepare({"kind": "none"}, corpora, tmp_path / "none")
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    assert read_manifest(folder) == {"name": "example", "kind": "none", "files": {}}


@pytest.mark.parametrize("kind", [*OBJECTIVES, "none"])
def test_an_encoder_is_the_same_twice_byte_for_byte(corpora: Path, tmp_path: Path, kind: str) -> None:
    first, second = (prepare(encoder_config(kind), corpora, tmp_path / name) for name in ("a", "b"))
    assert digests(first) == digests(second)
    assert set(digests(first)) == {"config.json", "encoder.json", "model.safetensors"}


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_is_the_same_twice_byte_for_byte(corpora: Path, tmp_path: Path, tied: bool) -> None:
    config = {**LANGUAGE_MODEL, "shape": {**LANGUAGE_MODEL["shape"], "tie_embeddings": tied}}
    first, second = (prepare(config, corpora, tmp_path / name) for name in ("a", "b"))
    assert digests(first) == digests(second)
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(digests(first))
    assert read_language_model(first).get_input_embeddings().weight.shape == (9, 16)


def test_another_name_or_seed_is_another_backbone(corpora: Path, tmp_path: Path) -> None:
    folders = [
        prepare(encoder_config("depth"), corpora, tmp_path / f"{name}-{seed}", name=name, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("a", 1))
    ]
    assert len({digests(folder)["model.safetensors"] for folder in folders}) == 3


def test_training_leaves_torchs_own_generator_alone(corpora: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    prepare(encoder_config("softmax"), corpora, tmp_path / "clip")
    prepare(LANGUAGE_MODEL, corpora, tmp_path / "llm")
    assert torch.equal(torch.rand(3), expected)


def test_timm_reads_the_folder_and_the_encoder_gives_the_same_features(corpora: Path, tmp_path: Path) -> None:
    import timm

    folder = prepare(encoder_config("segmentation"), corpora, tmp_path / "sam")
    pixels = torch.rand(2, 3, 12, 12)
    encoder = read_encoder(folder)
    module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        (expected,) = module.forward_intermediates(pixels, indices=[-1], norm=True, intermediates_only=True)
        torch.testing.assert_close(encoder(pixels), expected)
    assert (encoder.channels, encoder.grid) == (16, 3)


def test_a_convnet_and_sams_vit_train_too(corpora: Path, tmp_path: Path) -> None:
    convnext = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8], "stem_type": "overlap_tiered", "output_stride": 8}
    spec = {**SPEC, "features": {"layers": [0, 1, 2, 3], "norm": False}}
    folder = prepare(
        encoder_config(
            "softmax", architecture="convnext_xxlarge", model_args={**convnext, "num_classes": 0}, spec=spec
        ),
        corpora,
        tmp_path / "convnext",
    )
    assert (read_encoder(folder).channels, read_encoder(folder).grid) == (32, 3)
    samvit = {"img_size": 12, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "window_size": 0}
    folder = prepare(
        encoder_config(
            "segmentation",
            architecture="samvit_huge_patch16",
            model_args={**samvit, "global_attn_indexes": [], "neck_chans": 0, "num_classes": 0},
            spec={**SPEC, "features": {"layers": [-1], "norm": False}},
        ),
        corpora,
        tmp_path / "sam",
    )
    assert read_encoder(folder).grid == 3


def test_a_language_model_learns_to_read_phrases(corpora: Path, tmp_path: Path) -> None:
    from cambrian.backbones.corpora import read_documents
    from cambrian.backbones.documents import collate_documents, embed_documents, encode_document
    from cambrian.backbones.tokenizer import token_ids
    from tests.backbones.corpora import WORDS

    optimization = {**LANGUAGE_MODEL["optimization"], "num_steps": 60}
    folder = prepare({**LANGUAGE_MODEL, "optimization": optimization}, corpora, tmp_path / "llm")
    model, ids = read_language_model(folder), token_ids(WORDS)
    batch = collate_documents(
        [encode_document(document, ids, reading=False) for document in read_documents(corpora)[:4]], pad_id=0
    )
    with torch.no_grad():
        logits = model(inputs_embeds=embed_documents(batch, model.get_input_embeddings())).logits  # type: ignore[operator]
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100)
    assert loss < 0.1


def test_transformers_reads_the_folder_of_a_language_model(corpora: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = prepare(LANGUAGE_MODEL, corpora, tmp_path / "llm")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert len(AutoTokenizer.from_pretrained(folder)) == model.config.vocab_size


def test_documents_longer_than_the_model_are_refused_and_leave_nothing(corpora: Path, tmp_path: Path) -> None:
    config = {**LANGUAGE_MODEL, "shape": {**LANGUAGE_MODEL["shape"], "max_num_tokens": 4}}
    with pytest.raises(ValueError, match="the longest document has 6 tokens, max_num_tokens is 4"):
        prepare(config, corpora, tmp_path / "llm")
    assert list(tmp_path.iterdir()) == []


def test_missing_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"corpora has no manifest.json"):
        prepare(encoder_config("depth"), tmp_path / "corpora", tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "nothing"}, "backbones.example: found"),
        ({"kind": "none", "steps": 3}, r"backbones.example.none.steps: unknown field"),
        ({**LANGUAGE_MODEL, "reading_share": "all"}, r"reading_share: found 'all'"),
        ({"kind": "trained-encoder"}, "architecture: missing"),
        (
            {"kind": "pretrained-encoder", "source": {"kind": "hub", "repository": "a/b", "revision": "main"}},
            "revision: found 'main'",
        ),
    ],
)
def test_a_wrong_config_is_refused_with_its_place(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse(config)


def pretrained(kind: str, folder: Path, **values: Any) -> dict[str, Any]:
    return {"kind": f"pretrained-{kind}", "source": {"kind": "folder", "path": str(folder)}, **values}


def test_a_checkpoint_from_a_folder_keeps_its_weights(corpora: Path, tmp_path: Path) -> None:
    source = prepare(encoder_config("depth"), corpora, tmp_path / "source")
    config = pretrained("encoder", source, model_args={}, spec=SPEC)
    assert digests(prepare(config, corpora, tmp_path / "copy")) == digests(source)


def test_a_checkpoint_is_adapted_to_another_image_size(corpora: Path, tmp_path: Path) -> None:
    source = prepare(encoder_config("depth"), corpora, tmp_path / "source")
    larger = {**SPEC, "image": {**SPEC["image"], "side": 24}}  # type: ignore[dict-item]
    config = pretrained("encoder", source, model_args={"img_size": 24}, spec=larger)
    assert read_encoder(prepare(config, corpora, tmp_path / "large")).grid == 6


def test_a_language_model_from_a_folder_keeps_its_weights(corpora: Path, tmp_path: Path) -> None:
    source = prepare(LANGUAGE_MODEL, corpora, tmp_path / "source")
    copy = prepare(pretrained("language-model", source, dtype="float32"), corpora, tmp_path / "copy")
    assert digests(copy)["model.safetensors"] == digests(source)["model.safetensors"]
    assert json.loads((copy / "tokenizer.json").read_text()) == json.loads((source / "tokenizer.json").read_text())
    half = prepare(pretrained("language-model", source, dtype="bfloat16"), corpora, tmp_path / "half")
    assert (half / "model.safetensors").stat().st_size < (source / "model.safetensors").stat().st_size * 0.7


def test_a_source_that_is_missing_is_named(corpora: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a folder: put the checkpoint there"):
        prepare(pretrained("language-model", tmp_path / "no", dtype="float32"), corpora, tmp_path / "out")


def test_a_folder_that_is_not_timms_is_refused(corpora: Path, tmp_path: Path) -> None:
    source = prepare(LANGUAGE_MODEL, corpora, tmp_path / "source")
    with pytest.raises(ArtifactError, match="names no architecture"):
        prepare(pretrained("encoder", source, model_args={}, spec=SPEC), corpora, tmp_path / "out")


def test_a_hub_that_cannot_be_reached_is_an_artifact_error(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", refuse)
    source = {"kind": "hub", "repository": "some/model", "revision": "0" * 40}
    config = {"kind": "pretrained-language-model", "source": source, "dtype": "float32"}
    with pytest.raises(ArtifactError, match=r"some/model at 0{40} cannot be fetched \(no route\)"):
        prepare(config, corpora, tmp_path / "out")
