"""Which of our files a stage's file imports, at the top of a module or inside a function."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
OURS = ("cambrian", "stages", "flows")


def import_closure(entry: str) -> set[str]:
    """Every file of ours that a module reaches through imports, itself included, as paths from the root.

    Imports under `if TYPE_CHECKING:` do not run and do not count. Empty `__init__.py` files do not count.
    """
    found: set[str] = set()
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        waiting += imported_files(ROOT / path)
    return found


def imported_files(path: Path) -> list[str]:
    """The files of ours that one file imports directly."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: list[str] = []
    for node in running_nodes(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sorted({file for name in names if name.split(".")[0] in OURS for file in module_files(name)})


def running_nodes(tree: ast.AST) -> list[ast.AST]:
    """All nodes but those of an `if TYPE_CHECKING:` block."""
    nodes = [tree]
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        nodes += running_nodes(child)
    return nodes


def module_files(name: str) -> list[str]:
    """The file of a dotted name; none for a name inside a module or an empty package."""
    path = Path(*name.split("."))
    if (ROOT / path).with_suffix(".py").is_file():
        return [path.with_suffix(".py").as_posix()]
    package = path / "__init__.py"
    return [package.as_posix()] if (ROOT / package).is_file() and (ROOT / package).read_text().strip() else []
