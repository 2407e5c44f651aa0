"""`cambrian cvbench propose | finish`: CV-Bench from annotations, with a review by hand between the two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cambrian.data.cvbench.annotations import read_ade, read_coco, read_omni3d
from cambrian.data.cvbench.build import finish_items, propose_items
from cambrian.data.cvbench.questions import Rules
from cambrian.interfaces import ArtifactError
from cambrian.params import parse_block, read_yaml

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cambrian cvbench`."""
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    propose = steps.add_parser("propose", help="items from annotations, and a file to review them in")
    propose.add_argument("--coco", type=Path, help="an instances_*.json of COCO")
    propose.add_argument("--ade", type=Path, help="a folder of ADE20K's full release")
    propose.add_argument("--omni3d", type=Path, nargs="*", default=[], help="files of Omni3D")
    propose.add_argument("--pictures", type=Path, required=True, help="the folder that file names are relative to")
    propose.add_argument("--rules", type=Path, required=True, help="a YAML file (docs/benchmarks.md)")
    propose.add_argument("--seed", type=int, required=True)
    propose.add_argument("--output", type=Path, required=True)
    finish = steps.add_parser("finish", help="the set that a review leaves")
    finish.add_argument("--proposed", type=Path, required=True, help="what `propose` wrote")
    finish.add_argument("--review", type=Path, required=True, help="review.csv with every decision filled in")
    finish.add_argument("--output", type=Path, required=True)


def run(arguments: argparse.Namespace) -> None:
    """Propose items, or finish the set."""
    if arguments.step == "finish":
        finish_items(arguments.proposed, review=arguments.review, output=arguments.output)
        return
    pictures = [
        *(read_coco(arguments.coco) if arguments.coco else []),
        *(read_ade(arguments.ade) if arguments.ade else []),
        *(picture for path in arguments.omni3d for picture in read_omni3d(path)),
    ]
    if not pictures:
        raise ArtifactError("there are no annotated pictures: name --coco, --ade or --omni3d")

    def open_picture(name: str) -> bytes:
        path: Path = arguments.pictures / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing: the annotations name it")
        return path.read_bytes()

    rules = parse_block(Rules, read_yaml(arguments.rules), where=str(arguments.rules))
    propose_items(pictures, rules=rules, seed=arguments.seed, open_picture=open_picture, output=arguments.output)
