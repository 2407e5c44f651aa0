"""Probe: how well a linear classifier reads one encoder's frozen features (paper, NeurIPS table 7)."""

from __future__ import annotations

from pathlib import Path

from cambrian.evaluation.probing import ProbeConfig, probe_encoder
from cambrian.params import ParamsFiles
from cambrian.runtime import RuntimeConfig, parse_arguments, run_stage


def main() -> None:
    """Probe one encoder."""
    args = parse_arguments(__doc__, encoder=str, backbone=Path, images=Path, output=Path)
    files = ParamsFiles()
    probe_encoder(
        files.block("probe", ProbeConfig),
        backbone=args.backbone,
        images=args.images,
        runtime=files.block("runtime", RuntimeConfig),
        encoder=args.encoder,
        scale=files.scale,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
