from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

import flows.process
from flows.process import CancelledError, LimitError, Stop, run_group

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class StopWhen(Stop):
    """Is asked when a function says so; what that raises is raised where a signal would be."""

    def __init__(self, is_time: Callable[[], bool]) -> None:
        super().__init__()
        self._is_time = is_time

    @property
    def is_asked(self) -> bool:
        return self._is_time()


def run_shell(
    script: str,
    write_line: Callable[[str], None],
    *,
    stop: Stop | None = None,
    limit_s: float | None = None,
    **environment: str,
) -> int:
    return run_group(
        ["bash", "-c", script],
        write_line=write_line,
        environment=os.environ | environment,
        stop=stop or Stop(),
        limit_s=limit_s,
    )


def is_living(pid_path: Path) -> bool:
    try:
        return psutil.Process(int(pid_path.read_text())).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_both_streams_arrive_as_lines_and_the_status_comes_back() -> None:
    lines: list[str] = []
    assert run_shell("echo out; echo err >&2; echo; printf 'no newline'; exit 3", lines.append) == 3
    assert lines == ["out", "err", "no newline"]


def test_lines_arrive_while_the_command_runs() -> None:
    arrived: list[float] = []
    run_shell("echo first; sleep 1; echo second", lambda _line: arrived.append(time.monotonic()))
    assert arrived[1] - arrived[0] > 0.8


def test_bytes_that_are_no_text_do_not_stop_the_log() -> None:
    lines: list[str] = []
    run_shell(r"printf '\xff\n'; echo after", lines.append)
    assert lines == ["�", "after"]


def test_a_progress_bar_leaves_its_last_state() -> None:
    lines: list[str] = []
    run_shell(r"printf '1%%\r50%%\r100%%\n'", lines.append)
    assert lines == ["100%"]


def test_the_command_gets_the_environment_and_no_input() -> None:
    lines: list[str] = []
    assert run_shell('echo "$COLOUR"; read line || echo "no input"', lines.append, COLOUR="blue") == 0
    assert lines == ["blue", "no input"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_ends_children_that_ignore_signals_and_those_with_their_own_session(
    end: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.process, "_BACKGROUND_PATIENCE_S", 0.5)

    def interrupt() -> bool:
        if all((tmp_path / name).exists() for name in ("stubborn", "session")):
            raise end
        return False

    script = f"""
    (trap '' INT TERM; echo $BASHPID > {tmp_path}/stubborn; while true; do sleep 0.1; done) &
    setsid bash -c 'echo $$ > {tmp_path}/session; sleep 600' &
    sleep 600
    """
    with pytest.raises(end):
        run_shell(script, lambda _line: None, stop=StopWhen(interrupt))
    assert not is_living(tmp_path / "stubborn")
    assert not is_living(tmp_path / "session")


def test_the_leader_may_tidy_up_after_an_interrupt(tmp_path: Path) -> None:
    script = f"""if True:
        import time
        open({str(tmp_path / "up")!r}, "w")
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            print("tidy")
    """
    lines: list[str] = []
    with pytest.raises(CancelledError):
        run_group(
            [sys.executable, "-u", "-c", script],
            write_line=lines.append,
            environment=os.environ,
            stop=StopWhen((tmp_path / "up").exists),
        )
    assert lines[-1] == "tidy"


def test_what_a_command_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    lines: list[str] = []
    started = time.monotonic()
    assert run_shell(f"sleep 600 & echo $! > {tmp_path}/left; echo done", lines.append) == 0
    assert not is_living(tmp_path / "left")
    assert time.monotonic() - started < 5
    assert "done" in lines
    assert any(line.startswith("ending ") for line in lines)


def test_a_command_that_hangs_is_ended_at_its_limit(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match=r"ran longer than 0\.5 s"):
        run_shell(f"sleep 600 & echo $! > {tmp_path}/child; wait", lambda _line: None, limit_s=0.5)
    assert not is_living(tmp_path / "child")


def test_who_asks_twice_does_not_wait_for_a_command_that_tidies_up(tmp_path: Path) -> None:
    stop = Stop()

    def ask_when_up() -> None:
        while not (tmp_path / "up").exists():
            time.sleep(0.05)
        stop.ask()
        time.sleep(0.5)
        stop.ask()

    threading.Thread(target=ask_when_up).start()
    started = time.monotonic()
    with pytest.raises(CancelledError):
        run_shell(f"trap 'sleep 600' INT TERM; echo > {tmp_path}/up; sleep 600; sleep 600", lambda _: None, stop=stop)
    assert time.monotonic() - started < flows.process._FOREGROUND_PATIENCE_S


def test_the_group_is_named_when_it_starts_and_holds_what_it_is_given() -> None:
    groups: list[int] = []
    lines: list[str] = []
    read_end, write_end = os.pipe()
    os.write(write_end, b"held\n")
    os.close(write_end)
    run_group(
        ["bash", "-c", f"echo $$; cat <&{read_end}"],
        write_line=lines.append,
        environment=os.environ,
        stop=Stop(),
        keep_open=[read_end],
        on_start=groups.append,
    )
    os.close(read_end)
    assert lines == [str(groups[0]), "held"]
