import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cambrian.artifacts import read_json, read_manifest
from cambrian.interfaces import ArtifactError
from cambrian.release.checkpoints import official_tensors, read_checkpoint
from cambrian.release.conversion import convert_checkpoint
from cambrian.release.shards import open_shards, read_shard
from tests.release.conftest import SHAPES, VALUES, config_with, made_up_tensors
from tests.release.measure_conversion import KINDS, NUM_FILES, large_values, write_source

MIB = 1 << 20


def test_there_and_back_gives_the_same_files(checkpoint: Path, tmp_path: Path) -> None:
    num_files = convert_checkpoint(checkpoint, tmp_path / "ours", layout="cambrian", shapes=SHAPES)
    assert num_files == len(open_shards(checkpoint).paths)
    assert all(name.split(".")[0] in ("llm", "connector", "layout", "aggregators") for name in names(tmp_path / "ours"))
    convert_checkpoint(tmp_path / "ours", tmp_path / "back", layout="release", shapes=SHAPES)
    for path in checkpoint.iterdir():
        assert path.read_bytes() == (tmp_path / "back" / path.name).read_bytes()
    assert read_manifest(tmp_path / "back")["layout"] == "release"


def test_both_layouts_are_read_as_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    convert_checkpoint(checkpoint, tmp_path / "ours", layout="cambrian", shapes=SHAPES)
    expected = made_up_tensors(config_with())
    model = read_checkpoint(tmp_path / "ours", encoders=[], shapes=SHAPES, dtype=torch.float32)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in official_tensors(model).items())


def test_bin_files_become_safetensors_with_the_same_values(tmp_path: Path) -> None:
    source = write_bin_folder(tmp_path / "bin", num_shards=3)
    (source / "tokenizer_config.json").write_text("{}")
    convert_checkpoint(source, tmp_path / "converted", layout="release", shapes=SHAPES)
    found = {name: tensor for shard in open_shards(tmp_path / "converted") for name, tensor in shard.items()}
    expected = made_up_tensors(config_with())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name].to(torch.bfloat16)) for name in expected)
    assert (tmp_path / "converted" / "tokenizer_config.json").read_text() == "{}"
    assert not list((tmp_path / "converted").glob("*.bin"))


def test_a_broken_source_leaves_no_output(tmp_path: Path) -> None:
    source = write_bin_folder(tmp_path / "bin", num_shards=3)
    path = source / "pytorch_model-00002-of-00003.bin"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=r"00002-of-00003\.bin cannot be read"):
        convert_checkpoint(source, tmp_path / "converted", layout="cambrian", shapes=SHAPES)
    assert not (tmp_path / "converted").exists()


def test_a_missing_tensor_is_named_before_anything_is_written(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps(VALUES | {"connector_depth": 3}))
    with pytest.raises(ArtifactError, match=r"model.vision_sampler_0.layers.2.* is missing"):
        convert_checkpoint(checkpoint, tmp_path / "converted", layout="cambrian", shapes=SHAPES)
    assert not list(tmp_path.glob("*converted*"))


def test_the_source_is_never_its_own_output(checkpoint: Path) -> None:
    with pytest.raises(ArtifactError, match="is the source itself"):
        convert_checkpoint(checkpoint, checkpoint, layout="cambrian", shapes=SHAPES)
    assert read_shard(open_shards(checkpoint).paths[0])


def test_no_more_than_two_files_are_in_memory(tmp_path: Path) -> None:
    """Measured in a process of its own: its memory grows by about one file, and never by two."""
    for kind in KINDS:
        write_source(tmp_path / kind, large_values(16 * MIB), kind)
    sizes = [path.stat().st_size for path in (tmp_path / "bin").iterdir()]
    assert sum(sizes) > 7 * max(sizes) > 7 * 12 * MIB
    command = [sys.executable, "-m", "tests.release.measure_conversion", str(tmp_path)]
    growth = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert growth < 2 * max(sizes)
    for kind in KINDS:
        assert len(list((tmp_path / f"{kind}-converted").glob("*.safetensors"))) == NUM_FILES


def names(folder: Path) -> list[str]:
    return sorted(read_json(folder / "model.safetensors.index.json")["weight_map"])


def write_bin_folder(folder: Path, *, num_shards: int) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(VALUES))
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in made_up_tensors(config_with()).items()}
    weight_map: dict[str, str] = {}
    for shard in range(num_shards):
        file = f"pytorch_model-{shard + 1:05d}-of-{num_shards:05d}.bin"
        part = {name: tensors[name] for name in sorted(tensors)[shard::num_shards]}
        torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder
