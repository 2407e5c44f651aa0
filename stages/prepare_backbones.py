"""Prepare a backbone: train it from nothing, or fetch the published checkpoint."""

from pathlib import Path

from cambrian.params import ParamsFiles
from cambrian.runtime import RuntimeConfig, parse_arguments, run_stage


def main() -> None:
    """Read what the backbone's name means at this scale and make its folder."""
    from cambrian.backbones.config import BackboneConfig  # imports torch, which reads what run_stage sets
    from cambrian.backbones.prepare import prepare_backbone

    args = parse_arguments(__doc__, name=str, corpora=Path, output=Path)
    files = ParamsFiles()
    prepare_backbone(
        args.name,
        files.meaning("backbones", args.name, BackboneConfig),
        corpora=args.corpora,
        seed=files.seed,
        runtime=files.block("runtime", RuntimeConfig),
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
