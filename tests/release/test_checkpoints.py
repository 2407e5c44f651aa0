import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cambrian.interfaces import ArtifactError
from cambrian.models.multimodal import MultimodalModel
from cambrian.release.checkpoints import official_name, official_tensors, read_checkpoint, write_checkpoint
from cambrian.release.config import write_config
from cambrian.release.shards import open_shards, write_shard
from tests.release.conftest import SHAPES, config_with, made_up_model, made_up_tensors


def read(folder: Path, dtype: torch.dtype = torch.float32) -> MultimodalModel:
    return read_checkpoint(folder, encoders=[], shapes=SHAPES, dtype=dtype)


def write_whole(folder: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_config(folder, config_with(**changes))
    write_shard(folder / "model.safetensors", tensors)
    return folder


def test_a_model_that_was_exported_is_imported_bit_for_bit(checkpoint: Path) -> None:
    found = official_tensors(read(checkpoint))
    expected = made_up_tensors(config_with())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(open_shards(checkpoint).paths) > 2


def test_an_imported_model_is_exported_to_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    write_checkpoint(again, read(checkpoint), config_with(), max_shard_bytes=40_000)
    files = sorted(path.name for path in checkpoint.iterdir())
    assert files == sorted(path.name for path in again.iterdir())
    assert all((checkpoint / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_the_files_are_read_by_the_safetensors_library(checkpoint: Path) -> None:
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in checkpoint.glob("*.safetensors"):
        tensors |= load_file(path)
    expected = made_up_tensors(config_with())
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_nothing_of_a_model_that_was_read_is_without_memory(checkpoint: Path) -> None:
    model = read(checkpoint)
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert not model.training
    frequencies = model.llm.model.rotary_emb.inv_freq
    # rope_theta of config.json, not the library's default: 500000^(-2i/8)
    torch.testing.assert_close(frequencies, 500000.0 ** (-torch.arange(4) / 4.0))


def test_tensors_are_converted_to_the_type_that_is_asked_for(checkpoint: Path) -> None:
    model = read(checkpoint, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_names_are_the_official_ones() -> None:
    pairs = {
        "llm.model.layers.3.self_attn.q_proj.weight": "model.layers.3.self_attn.q_proj.weight",
        "llm.lm_head.weight": "lm_head.weight",
        "connector.queries": "model.vision_query",
        "layout.newline": "model.image_newline",
        "connector.projections.2.3.bias": "model.mm_projector_aux_2.3.bias",
        "connector.output.0.weight": "model.mm_projector.0.weight",
        "connector.groups.1.layers.2.keys.3.1.weight": "model.vision_sampler_1.layers.2.cross_attn.k_proj_3.1.weight",
        "aggregators.9.layers.0.window_positions.encoder_3": "model.vision_sampler_layers.9.layers.0.pos_embed_3",
        "aggregators.0.layers.0.output.2.weight": "model.vision_sampler_layers.0.layers.0.proj_out.linear_2.weight",
    }
    assert {ours: official_name(ours) for ours in pairs} == pairs


def test_a_tensor_that_the_release_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match=r"layout\.positions: the release's layout has no such tensor"):
        official_name("layout.positions")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "model.image_newline is missing"),
        ("extra", "model.vision_tower_aux_list.0.weight is not part of the model"),
        ("misshapen", r"model.vision_query has shape \(2, 17\), config.json makes it \(2, 16\)"),
    ],
)
def test_a_tensor_that_is_missing_extra_or_misshapen_is_named(tmp_path: Path, change: str, message: str) -> None:
    tensors = made_up_tensors(config_with())
    match change:
        case "missing":
            del tensors["model.image_newline"]
        case "extra":
            tensors["model.vision_tower_aux_list.0.weight"] = torch.zeros(2)
        case "misshapen":
            tensors["model.vision_query"] = torch.zeros(2, 17)
    folder = write_whole(tmp_path / "broken", tensors)
    with pytest.raises(ArtifactError, match=f"{re.escape(str(folder))}: {message}"):
        read(folder)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    tensors = made_up_tensors(config_with())
    del tensors["lm_head.weight"]
    tensors["surplus"] = torch.zeros(1)
    with pytest.raises(ArtifactError, match=r"lm_head\.weight is missing; surplus is not part of the model"):
        read(write_whole(tmp_path / "broken", tensors))


def test_a_config_of_another_model_is_noticed(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "other", made_up_tensors(config_with()), hidden_size=48)
    with pytest.raises(ArtifactError, match=r"lm_head.weight has shape \(40, 32\), config.json makes it \(40, 48\)"):
        read(folder)


def test_a_connector_without_aggregators_in_the_llm_is_read(tmp_path: Path) -> None:
    config = config_with(connector_only=True)
    model = read(write_whole(tmp_path / "only", made_up_tensors(config), connector_only=True))
    assert len(model.aggregators) == 0


def test_a_large_tensor_gets_a_file_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-shards"
    folder.mkdir()
    write_checkpoint(folder, made_up_model(config_with()), config_with(), max_shard_bytes=1)
    shards = open_shards(folder)
    assert len(shards.paths) == len(shards.shapes)
    assert read(folder)
