"""What holds dvc.yaml, the stages and the library together (docs/design.md)."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.pipeline.imports import ROOT, import_closure

SCALE_WORDS = {"mini", "paper", "smoke", "toy", "is_debug"}


def read_stages() -> dict[str, dict[str, list[object]]]:
    files = [ROOT / "dvc.yaml", *sorted((ROOT / "pipeline").glob("*/dvc.yaml"))]
    stages = [YAML(typ="safe").load(file.read_text())["stages"] for file in files]
    return {name: stage.get("do", stage) for part in stages for name, stage in part.items()}


STAGES = read_stages()


def module_of(stage: str) -> str:
    (module,) = re.findall(r"python -m (stages\.\w+)", str(STAGES[stage]["cmd"]))
    return module.replace(".", "/") + ".py"


def path_of(entry: object) -> str:
    return next(iter(entry)) if isinstance(entry, dict) else str(entry)


def test_the_pipeline_has_its_stages() -> None:
    assert len(STAGES) >= 12


@pytest.mark.parametrize("stage", STAGES)
def test_deps_cover_everything_that_the_stage_imports(stage: str) -> None:
    deps = [path_of(dep) for dep in STAGES[stage]["deps"]]
    closure = import_closure(module_of(stage))
    assert len(closure) > 3
    missing = sorted(file for file in closure if not any(file == dep or file.startswith(f"{dep}/") for dep in deps))
    assert not missing, f"add to the deps of {stage} in dvc.yaml: {missing}"


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_imported_or_data_of_a_room(stage: str) -> None:
    closure = import_closure(module_of(stage))
    deps = [path_of(dep) for dep in STAGES[stage]["deps"]]
    code = [dep for dep in deps if dep.startswith(("cambrian", "stages"))]
    assert code
    unused = [
        dep
        for dep in code
        if (dep.endswith(".py") and dep not in closure)
        or (not dep.endswith((".py", ".yaml", ".html")) and not any(file.startswith(f"{dep}/") for file in closure))
    ]
    assert not unused, f"{stage} does not import {unused}: a change there would rerun it for nothing"


@pytest.mark.parametrize("stage", STAGES)
def test_every_data_path_stands_in_the_command(stage: str) -> None:
    command = str(STAGES[stage]["cmd"])
    paths = [
        path_of(entry)
        for kind in ("deps", "outs", "metrics", "plots")
        for entry in STAGES[stage].get(kind, [])
        if not path_of(entry).startswith(("cambrian", "stages"))
    ]
    assert paths
    # A stage gets the path itself or a folder above it; a gate's verdict only has to exist.
    missing = [
        path
        for path in paths
        if not any(str(parent) in command.split() for parent in [Path(path), *list(Path(path).parents)[:-1]])
        and not re.search(r"(validated/.*|budget)\.json", path)
    ]
    assert not missing, f"{stage} does not get {missing} from its command line"


def test_a_gate_stands_between_a_pool_and_its_mixes_and_between_a_mix_and_training() -> None:
    pool, mix = "data/${scale}/validated/pools/${item.pool}.json", "data/${scale}/validated/${item.mix}.json"
    assert pool in STAGES["curate"]["deps"]
    assert pool.replace("item.pool", "key") in STAGES["validate_pool"]["outs"]
    assert mix in STAGES["align"]["deps"]
    assert mix in STAGES["finetune"]["deps"]
    assert mix.replace("item.mix", "key") in STAGES["validate"]["outs"]


def test_no_code_asks_which_scale_it_is() -> None:
    files = sorted([*(ROOT / "cambrian").rglob("*.py"), *(ROOT / "stages").rglob("*.py")])
    assert len(files) > 40
    found = [
        f"{file.relative_to(ROOT)}:{token.start[0]} {token.string}"
        for file in files
        for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline)
        if token.type in (tokenize.NAME, tokenize.STRING) and token.string.strip("\"'").lower() in SCALE_WORDS
    ]
    assert not found, found


def test_init_files_are_empty() -> None:
    files = [path for room in ("cambrian", "stages", "flows") for path in (ROOT / room).rglob("__init__.py")]
    assert len(files) > 8
    assert [str(path) for path in files if path.read_text().strip()] == []


def names_read(module: str) -> set[str]:
    """The blocks of params that a stage reads: the literal names in its calls on ParamsFiles.

    Calls of what it imports count where that is given the files.
    """
    readers = [file for file in import_closure(module) if "files: ParamsFiles" in (ROOT / file).read_text()]
    text = "".join((ROOT / file).read_text() for file in {module, *readers})
    blocks = set(re.findall(r"\.(?:rows?|meaning|block|count)\(\s*\"(\w+)\"", text))
    return blocks | ({"seed"} if re.search(r"files\.seed\b", text) else set())


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_exactly_what_the_stage_reads(stage: str) -> None:
    declared = set()
    for entry in STAGES[stage].get("params", []):
        names = next(iter(entry.values())) if isinstance(entry, dict) else [entry]
        declared |= {str(name).split(".")[0] for name in names}
    assert declared == names_read(module_of(stage))
