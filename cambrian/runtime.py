"""What every stage needs before and while it works: arguments, logging, progress, seeds, device, timing."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import logging
import os
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.params import Params

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")

TIMINGS_PATH = Path("logs/timings.jsonl")
_LOG_INTERVAL_S = 10.0
_log = logging.getLogger("cambrian")


class RuntimeConfig(Params):
    """Where a stage computes."""

    device: str
    """A torch device: cpu, cuda."""
    threads: int
    """Threads of one stage; part of the params because sums of floats depend on it."""


def parse_arguments(description: str | None, **arguments: type) -> argparse.Namespace:
    """Parse `--name VALUE` for every keyword, all of them required, each of the given type."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    for name, kind in arguments.items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, type=kind, required=True)
    return parser.parse_args()


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's main function: log to stderr, time it, and turn a foreseen fault into one clear line.

    A foreseen fault (bad params, a missing or broken artifact, a full disk) ends the process with status 1 and its
    message; Ctrl-C ends it with 130; anything else is a bug and keeps its traceback.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    # Read when torch is imported, so a stage imports torch in main. Threads that spin without end cost a stage six
    # times its CPU seconds when other work shares the cores (align, two threads, load of five); threads that sleep at
    # once gain nothing (finetune 24.6 s on two idle cores, one thread 21.3); a short spin gains and is bounded (16.3).
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    # What a stage imports and reads is a million objects that stay. The collector would walk them again and again while
    # they are made, and once more at exit: a third of the CPU-seconds of a start. `iter_progress` lets it begin.
    gc.disable()
    started = time.monotonic()
    try:
        main()
    except (ParamsError, ArtifactError) as error:
        _log.error("%s", error)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        _log.error("interrupted: nothing half-written is left; `dvc repro` continues with this stage")
        raise SystemExit(130) from None
    _write_timing(time.monotonic() - started)
    gc.freeze()  # the process ends here: see above


def generator_seed(seed: int, consumer: str) -> int:
    """Derive the seed of one consumer of randomness, so that adding a consumer shifts no other."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{consumer}".encode()).digest()[:7], "big")


def iter_progress(items: Iterable[T], *, total: int | None, what: str) -> Iterator[T]:
    """Yield the items, with a progress bar on a terminal and a log line every ten seconds elsewhere."""
    if not gc.isenabled():  # long work begins; what is there by now stays
        gc.freeze()
        gc.enable()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, total=total, description=what, console=Console(stderr=True), transient=True)
        return
    started = logged = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - logged >= _LOG_INTERVAL_S:
            logged = now
            rest = "" if not total or not done else f", {(now - started) / done * (total - done):.0f} s left"
            _log.info("%s: %d of %s%s", what, done, total if total is not None else "?", rest)
        yield item


@contextmanager
def logged_step(what: str) -> Iterator[dict[str, Any]]:
    """Log one line when the block ends, with its seconds and the facts that the block put into the dict."""
    facts: dict[str, Any] = {}
    started = time.monotonic()
    yield facts
    details = "".join(f", {key} {value}" for key, value in facts.items())
    _log.info("%s: %.1f s%s", what, time.monotonic() - started, details)


def _write_timing(wall_s: float) -> None:
    """Append this process's cost to the timing log (a log, not an out: it differs from run to run)."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    line = {
        "stage": _stage_name(sys.argv),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "wall_s": round(wall_s, 2),
        "cpu_s": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 2),
        "peak_mib": round(max(own.ru_maxrss, children.ru_maxrss) / 1024),
    }
    TIMINGS_PATH.parent.mkdir(exist_ok=True)
    with TIMINGS_PATH.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _stage_name(argv: Sequence[str]) -> str:
    return os.environ.get("DVC_STAGE", Path(argv[0]).stem).rsplit(":", 1)[-1]
