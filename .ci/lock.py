"""Write or check requirements.lock: every version that a set-up installs, resolved from pyproject.toml.

`python .ci/lock.py write` resolves anew (needs the package registry); `python .ci/lock.py check` needs none: it holds
the digest of pyproject's dependency tables, written into the lock's first line, against the tables as they are now, and
every direct pin against its line in the lock. So is requirements-lmms.lock, the environment in which lmms-eval runs,
where what the group names without a version has the version of requirements.lock.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
LMMS_LOCK = ROOT / "requirements-lmms.lock"
APART = ("antlr4-python3-runtime", "protobuf")
"""What lmms-eval needs in other releases than this project's own environment has."""


def dependency_tables() -> dict[str, list[str]]:
    """The dependency lists of pyproject.toml by group."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"base": project["dependencies"], **project["optional-dependencies"]}


def lmms_group() -> list[str]:
    """What the environment of lmms-eval is made from."""
    group: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["lmms"]
    return group


def header(tables: object) -> str:
    """First line of a lock that fits these tables of pyproject.toml."""
    digest = hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()
    return f"# `make lock` from pyproject.toml, dependencies sha256 {digest}"


def normalise(name: str) -> str:
    """A package's name as registries compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def write() -> None:
    """Resolve and write both locks; extras other than dev are resolved with them, but installed on demand only."""
    constraints = ["--constraint", str(LOCK)] if LOCK.exists() and "--upgrade" not in sys.argv else []
    extras = [word for extra in ("dev", "gpu", "ray", "kubernetes") for word in ("--extra", extra)]
    found = resolve([*extras, *constraints, "pyproject.toml"])
    LOCK.write_text("\n".join([header(dependency_tables()), *found]) + "\n")
    write_lmms()


def write_lmms() -> None:
    """Resolve and write the lock of lmms-eval's environment, as near to the other as can be."""
    lines = [line for line in LOCK.read_text().splitlines()[1:] if normalise(line.split("==")[0]) not in APART]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines))
        file.flush()
        found = resolve(["--group", "pyproject.toml:lmms", "--constraint", file.name])
    LMMS_LOCK.write_text("\n".join([header(lmms_group()), *found]) + "\n")


def resolve(arguments: list[str]) -> list[str]:
    """Every version that these need, a line each."""
    links = os.environ.get("PIP_FIND_LINKS")
    command = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--python-version", "3.11"]
    command += [*(["--find-links", links] if links else []), *arguments]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [line.replace("+cpu", "") for line in found.splitlines() if line and not line.startswith(("#", "--", " "))]


def check() -> None:
    """Exit with a message unless the locks fit pyproject.toml and each other."""
    pinned = read_lock(LOCK, dependency_tables())
    for requirement in itertools.chain(*dependency_tables().values()):
        name, version = requirement.split("==")
        name = normalise(name.split("[")[0])
        if pinned.get(name) != version:
            sys.exit(f"{LOCK.name} holds {name} {pinned.get(name)}, pyproject.toml asks for {version}")
    beside = read_lock(LMMS_LOCK, lmms_group())
    for name in map(normalise, (entry for entry in lmms_group() if "==" not in entry)):
        if beside.get(name) != pinned[name]:
            sys.exit(f"{LMMS_LOCK.name} holds {name} {beside.get(name)}, {LOCK.name} {pinned[name]}: run `make lock`")


def read_lock(path: Path, tables: object) -> dict[str, str]:
    """The versions of a lock by name; exits with a message where it was made from other tables."""
    lines = path.read_text().splitlines()
    if lines[0] != header(tables):
        sys.exit(f"{path.name} was not made from this pyproject.toml: run `make lock` and commit it")
    return {normalise(line.split("==")[0]): line.split("==")[1] for line in lines[1:]}


if __name__ == "__main__":
    {"write": write, "write-lmms": write_lmms, "check": check}[sys.argv[1]]()
