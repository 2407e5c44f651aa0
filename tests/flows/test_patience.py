from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

import flows.patience
from flows.patience import OutOfPatienceError, insist

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Time that passes only in pauses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(flows.patience, "time", clock)
    return clock


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def move() -> str:
        if left:
            raise left.pop()
        return "moved"

    return move


def test_a_minute_without_network_is_outlasted(clock: Clock) -> None:
    assert insist(failing(8, ConnectionError("no network"))) == "moved"
    assert clock.pauses == [1, 2, 4, 8, 15, 15, 15, 15]
    assert clock.now > 60


def test_after_three_minutes_the_last_error_is_named(clock: Clock) -> None:
    with pytest.raises(OutOfPatienceError, match=r"OSError: half \(tried 16 times in 180 s\)"):
        insist(failing(1000, OSError("half")))
    assert clock.now == 180


def test_a_fault_of_the_program_is_raised_as_it_is(clock: Clock) -> None:
    with pytest.raises(TypeError, match="no such argument"):
        insist(failing(1, TypeError("no such argument")))
    assert clock.pauses == []


@pytest.mark.parametrize("error", [PermissionError("denied"), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("is_inside", [False, True])
def test_what_waiting_does_not_mend_fails_at_once(error: OSError, is_inside: bool, clock: Clock) -> None:
    def move() -> None:
        if not is_inside:
            raise error
        raise RuntimeError("1 object did not pass") from error

    with pytest.raises(OutOfPatienceError, match="waiting does not mend it"):
        insist(move)
    assert clock.pauses == []
