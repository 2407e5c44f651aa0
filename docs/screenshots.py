"""Take the pictures of docs/prefect.md from a Prefect server that has a run of the flow `reproduce`.

    python docs/screenshots.py [--server http://127.0.0.1:4200] [--image KEY] [--table KEY] [--output docs/images]
                               [--only run table] [--run executor]

The newest run is shown, with what it published; KEY chooses among its files (default: the first of its kind). `--only`
takes some of the pictures, `--run` names that of the run. Needs Chromium. docs/demo.py makes a project to run.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_LOAD_MS = 20_000
_COLOURS = 128
_OWN_TABLES = {"stages": (1000, 760), "scores": (1400, 700), "verdicts": (1000, 700), "changed-verdicts": (1400, 700)}
"""Of every run, with the size of their pictures; the last three only of runs that can be compared with a commit."""
_log = logging.getLogger("screenshots")


def main() -> None:
    """Write run.png, image.png, table.png, a picture of each table that the run published, and of the deployment."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Pictures of a run in Prefect's UI.", allow_abbrev=False)
    parser.add_argument("--server", default="http://127.0.0.1:4200")
    parser.add_argument("--image", metavar="KEY")
    parser.add_argument("--table", metavar="KEY")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="pictures to take; default: all")
    parser.add_argument("--run", default="run", metavar="NAME", help="of the run's own picture; default: %(default)s")
    args = parser.parse_args()
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no browser found; install one of {', '.join(_BROWSERS)}")
    run = _find_run(args.server)
    artifacts = _list_artifacts(args.server, run["id"])
    tables = [key for key, kind in _kinds(artifacts) if kind == "table" and key not in _OWN_TABLES]
    images = [key for key, kind in _kinds(artifacts) if kind == "image"]
    keys = [key for key, _ in _kinds(artifacts)]
    pages = {args.run: (f"runs/flow-run/{run['id']}", (1400, 1000))}
    pages |= {key: (_page(artifacts, key), size) for key, size in _OWN_TABLES.items() if key in keys}
    if args.table or tables:
        pages["table"] = (_page(artifacts, args.table or tables[0]), (1400, 700))
    if args.image or images:
        pages["image"] = (_page(artifacts, args.image or images[0]), (1000, 760))
    for deployment in _ask(args.server, "deployments", {"deployments": {"name": {"any_": ["on-demand"]}}}):
        pages["deployment"] = (f"deployments/deployment/{deployment['id']}", (1400, 800))
    args.output.mkdir(parents=True, exist_ok=True)
    for name, (page, size) in pages.items():
        if args.only and name not in args.only:
            continue
        path = args.output / f"{name}.png"
        path.write_bytes(_take(browser, f"{args.server}/{page}", size))
        _log.info("%s: %d KiB", path, path.stat().st_size // 1024)


def _find_run(server: str) -> dict[str, Any]:
    runs = _ask(
        server, "flow_runs", {"flows": {"name": {"any_": ["reproduce"]}}, "sort": "START_TIME_DESC", "limit": 1}
    )
    if not runs:
        sys.exit(f"{server} has no run of the flow reproduce: PREFECT_API_URL={server}/api python -m flows.reproduce")
    found: dict[str, Any] = runs[0]
    return found


def _list_artifacts(server: str, run_id: str) -> list[dict[str, Any]]:
    found = _ask(server, "artifacts", {"flow_runs": {"id": {"any_": [run_id]}}})
    return sorted((artifact for artifact in found if artifact["key"]), key=lambda artifact: str(artifact["key"]))


def _ask(server: str, what: str, filters: dict[str, Any]) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{server}/api/{what}/filter",
        data=json.dumps(filters).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        rows: list[dict[str, Any]] = json.load(answer)
        return rows


def _kinds(artifacts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(artifact["key"], artifact["type"]) for artifact in artifacts]


def _page(artifacts: list[dict[str, Any]], key: str) -> str:
    for artifact in artifacts:
        if artifact["key"] == key:
            return f"artifacts/artifact/{artifact['id']}"
    sys.exit(f"the run has no artifact {key}; it has {', '.join(str(key) for key, _ in _kinds(artifacts))}")


def _take(browser: str, address: str, size: tuple[int, int]) -> bytes:
    """Let the page load (its own clock runs ahead) and return it as a PNG of few colours, which is a small one."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        options = {
            "window-size": f"{size[0]},{size[1]}",
            "user-data-dir": f"{folder}/profile",
            "virtual-time-budget": str(_LOAD_MS),
            "screenshot": str(picture),
        }
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += [f"--{name}={value}" for name, value in options.items()]
        subprocess.run([browser, *flags, address], check=True, capture_output=True, timeout=180)
        small = io.BytesIO()
        Image.open(picture).convert("RGB").quantize(_COLOURS).save(small, "PNG", optimize=True)
        return small.getvalue()


if __name__ == "__main__":
    main()
