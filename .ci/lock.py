"""Write or check requirements.lock: every version that a set-up installs, resolved from pyproject.toml.

`python .ci/lock.py write` resolves anew (needs the package registry); `python .ci/lock.py check` needs none: it holds
the digest of pyproject's dependency tables, written into the lock's first line, against the tables as they are now, and
every direct pin against its line in the lock.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"


def dependency_tables() -> dict[str, list[str]]:
    """The dependency lists of pyproject.toml by group."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"base": project["dependencies"], **project["optional-dependencies"]}


def header() -> str:
    """First line of a lock that fits pyproject.toml."""
    digest = hashlib.sha256(json.dumps(dependency_tables(), sort_keys=True).encode()).hexdigest()
    return f"# `make lock` from pyproject.toml, dependencies sha256 {digest}"


def normalise(name: str) -> str:
    """A package's name as registries compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def write() -> None:
    """Resolve and write the lock; extras other than dev are resolved with it, but installed on demand only."""
    links = os.environ.get("PIP_FIND_LINKS")
    command = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--python-version", "3.11"]
    command += [*(["--find-links", links] if links else []), "--extra", "dev"]
    command += [word for extra in ("gpu", "ray", "kubernetes") for word in ("--extra", extra)]
    constraints = ["--constraint", str(LOCK)] if LOCK.exists() and "--upgrade" not in sys.argv else []
    found = subprocess.run(
        [*command, *constraints, "pyproject.toml"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    lines = [line.replace("+cpu", "") for line in found.splitlines() if line and not line.startswith(("#", "--", " "))]
    LOCK.write_text("\n".join([header(), *lines]) + "\n")


def check() -> None:
    """Exit with a message unless the lock fits pyproject.toml."""
    lines = LOCK.read_text().splitlines()
    if lines[0] != header():
        sys.exit("requirements.lock was not made from this pyproject.toml: run `make lock` and commit it")
    pinned = {normalise(line.split("==")[0]): line.split("==")[1] for line in lines[1:]}
    for requirement in itertools.chain(*dependency_tables().values()):
        name, version = requirement.split("==")
        name = normalise(name.split("[")[0])
        if pinned.get(name) != version:
            sys.exit(f"requirements.lock holds {name} {pinned.get(name)}, pyproject.toml asks for {version}")


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]]()
