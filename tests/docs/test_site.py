"""The documentation: it builds without a warning, its reference is complete, and its commands exist."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from cambrian.cli import COMMANDS, main
from cambrian.params import read_yaml
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^( *)```bash\n(.*?)^\1```", flags=re.DOTALL | re.MULTILINE)


def list_commands() -> list[tuple[str, str]]:
    """Every command of a block of shell, with its page."""
    return [
        (page.relative_to(ROOT).as_posix(), line.strip())
        for page in PAGES
        for _, block in BLOCK.findall(page.read_text())
        for line in block.splitlines()
        if line.strip()
    ]


def list_calls() -> list[tuple[str, str]]:
    """Every line that calls `cambrian`, joined where it goes on, without what is said beside it; with its page."""
    return [
        (page.relative_to(ROOT).as_posix(), re.split(r"\s{3,}|\s+# ", line)[0])
        for page in [*PAGES, ROOT / "README.md"]
        for line in re.findall(
            r"^ *(?:\$ )?(cambrian [a-z].*)$", re.sub(r"\\\n\s*", " ", page.read_text()), flags=re.MULTILINE
        )
    ]


def option_names(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a command and of what it has below it."""
    names = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            names |= set().union(*map(option_names, action.choices.values()))
    return names


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ReportConfig" in (tmp_path / "site" / "reference" / "params" / "index.html").read_text()


def test_the_reference_has_every_class_of_params() -> None:
    text = (ROOT / "docs" / "reference" / "params.md").read_text()
    modules = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in (ROOT / "cambrian").rglob("config.py")
    ]
    assert len(modules) > 4
    assert [module for module in modules if f"::: {module}\n" not in text] == []


def test_every_file_that_a_page_names_is_there() -> None:
    named = re.compile(
        r"(?<![\w/.-])(?:tests|cambrian|flows|stages|benchmarks|pipeline)/[\w./-]+\.(?:py|yaml|json|html|typ)\b"
    )
    texts = {page: page.read_text() for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]}
    found = [(page.name, path) for page, text in texts.items() for path in named.findall(text)]
    assert len(found) > 50
    assert [(page, path) for page, path in found if not (ROOT / path).is_file()] == []


def test_pages_count_the_runs_of_each_breadth_as_params_has_them() -> None:
    breadths = read_yaml(ROOT / "params.yaml")["breadths"]
    runs = {name: len(rows["runs"]) for name, rows in breadths.items()}
    trainings = {name: runs[name] + len(rows["adapters"]) for name, rows in breadths.items()}
    concepts = (ROOT / "docs" / "concepts.md").read_text()
    assert {name: int(count) for name, count in re.findall(r"`(\w+)`\s+\((\d+)[ :]", concepts)} == runs
    costs = (ROOT / "docs" / "costs.md").read_text()
    assert {name: int(count) for name, count in re.findall(r"`mini` \| `(\w+)` \| (\d+) \|", costs)} == trainings
    for page, pattern in (("docs/index.md", r"evaluates (\d+) runs"), ("README.md", r"the (\d+) default ones")):
        assert re.findall(pattern, (ROOT / page).read_text()) == [str(runs["default"])], page


@pytest.mark.parametrize(("page", "command"), list_commands())
def test_every_command_names_what_there_is(page: str, command: str) -> None:
    program, *arguments = shlex.split(command)
    match program:
        case "make":
            makefile = (ROOT / "Makefile").read_text()
            assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in arguments)
        case "cambrian":
            assert arguments[0] in COMMANDS
        case "pytest":
            assert all((ROOT / path).exists() for path in arguments)
        case "python":
            module = ROOT / arguments[1].replace(".", "/")
            assert arguments[0] == "-m"
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()
        case "dvc" | "prefect" | "git":
            assert arguments
        case _:
            pytest.fail(f"{page}: {command!r} is not checked by anything: add its kind here")


@pytest.mark.parametrize(("page", "line"), list_calls())
def test_every_call_of_cambrian_has_arguments_that_it_takes(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line)[1:]
    called: list[argparse.Namespace] = []
    monkeypatch.setattr(import_module(COMMANDS[words[0]].module), "run", called.append)
    main(words)
    assert len(called) == 1


def test_every_option_of_cambrian_that_a_page_names_exists() -> None:
    named = [
        (page.name, command, option)
        for page in [*PAGES, ROOT / "README.md"]
        for text, command in re.findall(r"`(cambrian\s+(\w+)[^`]*)`", page.read_text())
        for option in re.findall(r"--[a-z-]+", text)
    ]
    assert len(named) > 5
    options = {}
    for command in {command for _, command, _ in named}:
        parser = argparse.ArgumentParser()
        import_module(COMMANDS[command].module).add_arguments(parser)
        options[command] = option_names(parser)
    assert [found for found in named if found[2] not in options[found[1]]] == []
