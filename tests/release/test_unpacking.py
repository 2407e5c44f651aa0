"""From a checkpoint in the release's layout to a model that is read, and talked to, as every other here."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from cambrian.artifacts import read_json, write_json
from cambrian.chat.talker import read_talker
from cambrian.cli import main
from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.models.encoders import read_encoder
from cambrian.models.weights import read_model, read_stored
from cambrian.release.checkpoints import official_tensors, read_checkpoint, write_checkpoint
from cambrian.release.shards import join_shards, open_shards, read_shard
from cambrian.release.unpacking import released_encoder_names, unpack_checkpoint
from tests.models.conftest import encoder_spec, write_tiny_encoder
from tests.parity.files import golden_files
from tests.parity.test_model import TOLERANCE, Golden
from tests.release.conftest import SHAPES, config_with, made_up_model, made_up_tensors

GOLDEN = golden_files("model_")[0].parent
CHANGES: dict[str, Any] = {"vocab_size": 640, "max_position_embeddings": 2048}
"""Of the tiny model, for a tokenizer that knows the release's prompts."""


def write_encoder_of(folder: Path, *, channels: int, grid: int) -> None:
    """A ViT with one feature per 4 x 4 pixels."""
    shape = {"img_size": 4 * grid, "patch_size": 4, "embed_dim": channels, "depth": 1, "num_heads": 2, "num_classes": 0}
    write_tiny_encoder(folder, "vit_tiny_patch16_224", shape, encoder_spec(4 * grid, layers=[-1], norm=True))


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scale's folder with the two encoders of the tiny checkpoint."""
    folder = tmp_path_factory.mktemp("scale")
    for name, shape in zip(("a", "b"), SHAPES, strict=True):
        write_encoder_of(folder / "backbones" / name, channels=shape.channels, grid=shape.grid)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The tiny checkpoint with a tokenizer, as it would be downloaded."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    write_checkpoint(folder, made_up_model(config_with(**CHANGES)), config_with(**CHANGES), max_shard_bytes=40_000)
    add_tokenizer(folder)
    return folder


def add_tokenizer(folder: Path) -> None:
    shutil.copyfile(GOLDEN / "tok_llama3_like.json", folder / "tokenizer.json")
    write_json(folder / "tokenizer_config.json", {"eos_token": {"content": "<|end_of_text|>"}})


def unpack(source: Path, scale: Path, name: str = "tiny", **changes: Any) -> Path:
    output = scale / "runs" / name
    values: dict[str, Any] = {"backbones": scale / "backbones", "encoders": ["a", "b"], "template": "llama_3"}
    unpack_checkpoint(source, output, **{**values, **changes})
    return output


def test_the_projects_own_reader_gives_the_checkpoints_model(source: Path, scale: Path) -> None:
    model = read_model(unpack(source, scale), backbones=scale / "backbones")
    found, expected = official_tensors(model), made_up_tensors(config_with(**CHANGES))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("path", golden_files("model_"), ids=lambda path: path.stem)
def test_an_unpacked_model_gives_the_official_logits(path: Path, scale: Path, tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    golden = Golden(path, tmp_path / "golden")
    add_tokenizer(tmp_path / "golden")
    names = []
    for channels, grid in zip(golden.config["tower_hidden_sizes"], golden.sides, strict=True):
        names.append(f"golden-{channels}-{grid}")
        write_encoder_of(scale / "backbones" / names[-1], channels=channels, grid=grid)
    folder = unpack(tmp_path / "golden", scale, path.stem, encoders=names)
    model = read_model(folder, backbones=scale / "backbones").eval()
    model.encoders = nn.ModuleList(nn.Identity() for _ in names)  # the file holds what encoders would deliver
    samples = golden.samples_of("inference.logits_")
    assert samples
    for sample in samples:
        batch = golden.batch([sample])
        with torch.no_grad():
            logits, mask = model(batch), model.embed(batch).mask
        torch.testing.assert_close(logits[mask], golden.tensors[f"inference.logits_{sample}"][0], **TOLERANCE)


def test_a_converted_checkpoint_answers_in_the_terminal(
    source: Path, scale: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (9, 4), (200, 30, 30)).save(tmp_path / "red.png")
    output, backbones = scale / "runs" / "told", scale / "backbones"
    picture = tmp_path / "red.png"
    common = f"--checkpoint {source} --backbones {backbones} --encoders a,b --template llama_3 --output {output}"
    main(["convert", *common.split()])
    assert capsys.readouterr().out == f"{output} and {backbones / 'told'} are ready\n"
    main(["chat", *f"--model {output} --image {picture} --prompt hi --max-new-tokens 5".split()])
    encoders = [read_encoder(backbones / name) for name in ("a", "b")]
    model = read_checkpoint(source, encoders=encoders, shapes=SHAPES, dtype=torch.float32)
    talker = replace(read_talker(output, backbones=None, device="cpu"), model=model)
    answer = talker.answer([picture.read_bytes()], [], "hi", max_new_tokens=5)
    assert capsys.readouterr().out == f"{answer.text}\n"
    assert answer.layers[-1].name == "in the LLM, after layer 3"


def test_a_sentencepiece_tokenizer_becomes_one_file_with_its_added_tokens(source: Path, scale: Path) -> None:
    (source / "tokenizer.json").unlink()
    shutil.copyfile(GOLDEN / "tok_spm_like.model", source / "tokenizer.model")
    write_json(source / "added_tokens.json", {"<|im_end|>": 601, "<|im_start|>": 600})
    write_json(source / "tokenizer_config.json", {"eos_token": "<|im_end|>", "unk_token": "<unk>"})
    talker = read_talker(unpack(source, scale, "pieces", template="chatml_direct"), backbones=None, device="cpu")
    tokenizer = talker.tokenizer
    assert tokenizer.token_id("<|im_end|>") == tokenizer.token_id("<|im_start|>") + 1 == tokenizer.end_id
    assert tokenizer.pad_id == tokenizer.token_id("<unk>")


def test_a_tokenizer_without_an_end_is_refused(source: Path, scale: Path) -> None:
    write_json(source / "tokenizer_config.json", {"pad_token": "<|eot_id|>"})
    with pytest.raises(ArtifactError, match=r"ends with None and pads with '<\|eot_id\|>', expected two tokens"):
        unpack(source, scale, "endless")
    assert not (scale / "backbones" / "endless").exists()


def test_no_other_backbone_is_replaced_and_an_earlier_unpacking_is(source: Path, scale: Path) -> None:
    with pytest.raises(ArtifactError, match=r"backbones/a is another backbone, .*: give the output another name"):
        unpack(source, scale, "a")
    assert read_encoder(scale / "backbones" / "a").grid == SHAPES[0].grid
    for _ in range(2):
        assert read_stored(unpack(source, scale, "again")).config.llm == "again"


def test_an_encoder_on_another_grid_is_refused(source: Path, scale: Path) -> None:
    message = r"backbones/a has a grid of 2, of which a query sees 1 x 1 places; .* with b on a grid of 4"
    with pytest.raises(ArtifactError, match=message):
        unpack(source, scale, "coarse", encoders=["a", "a"])


def test_an_encoder_of_another_width_is_refused(source: Path, scale: Path) -> None:
    write_encoder_of(scale / "backbones" / "wide", channels=8, grid=2)
    with pytest.raises(ArtifactError, match=r"mm_projector_aux_0\.0\.weight has shape \(16, 6\), config.json makes it"):
        unpack(source, scale, "wide", encoders=["wide", "b"])


def test_one_encoder_too_few_is_refused(source: Path, scale: Path) -> None:
    with pytest.raises(ArtifactError, match=r"1 encoders \(a\), the checkpoint has 2 \(a, b\): name one for each"):
        unpack(source, scale, "single", encoders=["a"])


def test_a_missing_tensor_leaves_nothing_behind(source: Path, scale: Path) -> None:
    values = read_json(source / "config.json")
    (source / "config.json").write_text(json.dumps(values | {"connector_depth": 3}))
    with pytest.raises(ArtifactError, match=r"model.vision_sampler_0.layers.2.* is missing"):
        unpack(source, scale, "shallow")
    assert not (scale / "backbones" / "shallow").exists()
    assert not (scale / "runs" / "shallow").exists()


def test_an_unknown_template_is_named(source: Path, scale: Path) -> None:
    with pytest.raises(ParamsError, match="did you mean 'llama_3'"):
        unpack(source, scale, template="llama3")


def test_the_released_encoders_have_names_here(source: Path) -> None:
    values = read_json(source / "config.json")
    towers = ["openai/clip-vit-large-patch14-336", "clip-convnext-XXL-multi-stage"]
    (source / "config.json").write_text(json.dumps(values | {"mm_vision_tower_aux_list": towers}))
    assert released_encoder_names(source) == ["clip-l-336-final", "convnext-xxl-1024-stages"]


def test_an_encoder_of_no_released_model_is_named(source: Path) -> None:
    with pytest.raises(ParamsError, match="mm_vision_tower_aux_list: unknown name 'a'"):
        released_encoder_names(source)


def test_a_joined_file_has_the_named_tensors_of_all_files(source: Path, tmp_path: Path) -> None:
    shards = open_shards(source)
    assert len(shards.paths) > 2
    names = {name: f"new.{name}" for name in shards.shapes if "vision_sampler" in name}
    join_shards(tmp_path / "joined.safetensors", shards, names)
    found = read_shard(tmp_path / "joined.safetensors")
    expected = made_up_tensors(config_with(**CHANGES))
    assert found.keys() == set(names.values())
    assert all(torch.equal(found[f"new.{name}"], expected[name]) for name in names)
