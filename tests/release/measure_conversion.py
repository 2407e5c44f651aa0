"""Converts made-up folders in a process of its own and prints by how much its memory grew at its highest."""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from cambrian.release.building import build_on_meta
from cambrian.release.checkpoints import official_tensors
from cambrian.release.config import parse_config
from cambrian.release.conversion import convert_checkpoint
from cambrian.release.shards import write_shard
from tests.release.conftest import SHAPES, VALUES

NUM_FILES = 8
KINDS = ("safetensors", "bin")


def main() -> None:
    folder = Path(sys.argv[1])
    warm_up(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind in KINDS:
        convert_checkpoint(folder / kind, folder / f"{kind}-converted", layout="cambrian", shapes=SHAPES)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    sys.stdout.write(str(growth * 1024))


def large_values(shard_bytes: int) -> dict[str, Any]:
    """A config whose decoder layers have about this size each in bfloat16."""
    width = 512
    rows = shard_bytes // 2 // width
    return VALUES | {
        "hidden_size": width, "intermediate_size": rows // 3, "num_hidden_layers": NUM_FILES, "vocab_size": 64,
    }  # fmt: skip


def warm_up(folder: Path) -> None:
    """Import and allocate what any conversion needs, with a small model."""
    write_source(folder / "small", VALUES | {"num_hidden_layers": NUM_FILES}, "safetensors")
    convert_checkpoint(folder / "small", folder / "small-converted", layout="cambrian", shapes=SHAPES)


def write_source(folder: Path, values: dict[str, Any], kind: str) -> None:
    """One file per decoder layer; the first also has everything else."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values))
    expected = official_tensors(build_on_meta(parse_config(values, where="made up"), SHAPES))
    weight_map = {}
    ending, stem = ("bin", "pytorch_model") if kind == "bin" else ("safetensors", "model")
    for number in range(NUM_FILES):
        names = [name for name in expected if file_of(name) == number]
        tensors = {name: torch.full(expected[name].shape, 0.5, dtype=torch.bfloat16) for name in names}
        file = f"{stem}-{number}.{ending}"
        if kind == "bin":
            torch.save(tensors, folder / file)
        else:
            write_shard(folder / file, tensors)
        weight_map |= dict.fromkeys(names, file)
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def file_of(name: str) -> int:
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else 0


if __name__ == "__main__":
    main()
