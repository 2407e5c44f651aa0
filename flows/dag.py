"""The graph of every scale, kind by kind: how many stages there are of each, and which kinds they wait for.

python -m flows.dag [SCALE ...]
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before dvc, which reads the environment when imported)

import argparse
import contextlib
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from flows.graph import GraphError, Project

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flows.graph import StageNode

_SCALE = re.compile(r"^scale:.*$", re.MULTILINE)
_PROJECT = ("params.yaml", "dvc.yaml", "scales", "pipeline")
"""What a graph depends on."""


def read_nodes(scale: str, root: Path = Path()) -> list[StageNode]:
    """List the stages of a scale, whichever one the project is at; nothing of the project is touched.

    Raises:
        GraphError: DVC cannot read the pipeline at this scale.
    """
    with tempfile.TemporaryDirectory(prefix="dag-") as name:
        folder = Path(name)
        for part in _PROJECT:
            source = root / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("dvc.lock"))
            elif source.exists():
                shutil.copy(source, folder / part)
        params = folder / "params.yaml"
        params.write_text(_SCALE.sub(f"scale: {scale}", params.read_text(encoding="utf-8"), count=1), encoding="utf-8")
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
        with contextlib.chdir(folder), Project() as project:
            return project.plan(all_pipelines=True)


def describe(nodes: Sequence[StageNode]) -> list[str]:
    """One line per kind of stage, each after the kinds that it waits for."""
    counts: defaultdict[str, int] = defaultdict(int)
    before: defaultdict[str, set[str]] = defaultdict(set)
    for node in nodes:
        kind = kind_of(node.address)
        counts[kind] += 1
        before[kind].update(kind_of(address) for address in node.upstream)
    width = max((len(kind) for kind in counts), default=0)
    lines = []
    for kind in _order(before):
        waits = ", ".join(sorted(before[kind] - {kind}))
        lines.append(f"{kind:<{width}} {counts[kind]:>4}{f'  after {waits}' if waits else ''}")
    return lines


def kind_of(address: str) -> str:
    """`finetune` of `pipeline/finetune/dvc.yaml:finetune@clip`."""
    return address.rsplit(":", 1)[-1].partition("@")[0]


def main(argv: Iterable[str] | None = None) -> None:
    """Print the graphs; a scale that DVC cannot read ends the process with its message."""
    parser = argparse.ArgumentParser(prog="python -m flows.dag", description="The graph of every scale.")
    parser.add_argument("scales", nargs="*", metavar="SCALE", help="default: all of them")
    scales = parser.parse_args(None if argv is None else list(argv)).scales
    for scale in scales or sorted(path.stem for path in Path("scales").glob("*.yaml")):
        try:
            nodes = read_nodes(scale)
        except GraphError as error:
            sys.exit(f"scale {scale}: {error}")
        sys.stdout.write(f"scale {scale}: {len(nodes)} stages\n")
        sys.stdout.writelines(f"  {line}\n" for line in describe(nodes))


def _order(before: dict[str, set[str]]) -> list[str]:
    done: list[str] = []
    while len(done) < len(before):
        ready = [kind for kind in before if kind not in done and before[kind] - {kind} <= set(done)]
        done += ready or [kind for kind in before if kind not in done]  # kinds may wait for each other, stages may not
    return done


if __name__ == "__main__":
    main()
