"""The golden files, found by prefix, and the official names of parameters."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor


def golden_files(prefix: str) -> list[Path]:
    folder = Path(os.environ.get("CAMBRIAN_GOLDEN", Path(__file__).parent / "golden"))
    files = sorted(folder.glob(f"{prefix}*.safetensors"))
    assert files, f"no {prefix}*.safetensors in {folder}"
    return files


def read_golden(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["config"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def official_aggregator_name(name: str) -> str:
    """The release's name of a parameter of `Aggregator`."""
    layers, layer, *rest = name.split(".")
    match rest:
        case ["context_projection", leaf]:
            local = f"proj_context.{leaf}"
        case ["input_projection", leaf]:
            local = f"proj_in.{leaf}"
        case ["query", step, leaf]:
            local = f"cross_attn.q_proj.{step}.{leaf}"
        case ["keys" | "values" as kind, encoder, step, leaf]:
            local = f"cross_attn.{kind[0]}_proj_{encoder}.{step}.{leaf}"
        case ["window_positions", encoder]:
            local = f"pos_embed_{encoder.removeprefix('encoder_')}"
        case ["attention_output", leaf]:
            local = f"cross_attn.o_proj.{leaf}"
        case ["norm", leaf]:
            local = f"norm.{leaf}"
        case ["output", step, leaf]:
            local = f"proj_out.linear_{1 if step == '0' else 2}.{leaf}"
        case _:
            raise ValueError(f"{name} is no parameter of an aggregator")
    return f"{layers}.{layer}.{local}"
