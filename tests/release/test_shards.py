import json
import pickle
from pathlib import Path

import pytest
import torch

from cambrian.interfaces import ArtifactError
from cambrian.release.shards import open_shards, read_shard, write_shard


class Reduced:
    """What pickle would call a function for."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("never",)


def test_every_type_is_written_as_the_library_reads_it(tmp_path: Path) -> None:
    tensors = {
        str(dtype): torch.arange(6).to(dtype).reshape(2, 3).T
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)
    }
    tensors["nothing"] = torch.zeros(0, 3)
    tensors["scalar"] = torch.tensor(1.5)
    write_shard(tmp_path / "a.safetensors", tensors)
    found = read_shard(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors)


def test_a_type_that_the_format_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"x has type torch\.complex64"):
        write_shard(tmp_path / "a.safetensors", {"x": torch.zeros(1, dtype=torch.complex64)})


@pytest.mark.parametrize("is_zip", [True, False])
def test_bin_files_of_both_formats_are_read(tmp_path: Path, is_zip: bool) -> None:
    torch.save({"a": torch.arange(3)}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    shards = open_shards(tmp_path)
    assert shards.shapes == {"a": (3,)}
    assert [tensors["a"].tolist() for tensors in shards] == [[0, 1, 2]]


def test_code_in_a_pickle_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Reduced()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="Pickled code is never run"):
        open_shards(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Reduced(), protocol=2))
    with pytest.raises(ArtifactError, match="cannot be read as tensors alone"):
        open_shards(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_bin_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}, "step": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="holds dict, int, expected tensors by name"):
        open_shards(tmp_path)


def test_a_folder_without_a_checkpoint_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model.safetensors\[.index.json\], pytorch_model.bin"):
        open_shards(tmp_path)


def test_missing_files_of_an_index_are_named(tmp_path: Path) -> None:
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    write_shard(tmp_path / "one.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(ArtifactError, match=r"lacks two.safetensors \(1 of 2 files"):
        open_shards(tmp_path)


def test_a_tensor_that_its_file_lacks_is_named(tmp_path: Path) -> None:
    write_index(tmp_path, {"a": "one.safetensors", "b": "one.safetensors"})
    write_shard(tmp_path / "one.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(ArtifactError, match=r"one\.safetensors: b should be here"):
        open_shards(tmp_path)


def test_a_tensor_in_two_files_is_named(tmp_path: Path) -> None:
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    for name in ("one", "two"):
        write_shard(tmp_path / f"{name}.safetensors", {"a": torch.zeros(1), "b": torch.zeros(1)})
    with pytest.raises(ArtifactError, match=r"two\.safetensors: a already stands in another file"):
        open_shards(tmp_path)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    write_index(tmp_path, {"a": "../one.safetensors"})
    with pytest.raises(ArtifactError, match="outside its folder"):
        open_shards(tmp_path)


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_shard(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        open_shards(tmp_path)


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
