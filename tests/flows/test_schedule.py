from __future__ import annotations

from typing import TYPE_CHECKING

from flows.graph import StageNode
from flows.schedule import Outcome, Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping


def node(address: str, *upstream: str) -> StageNode:
    return StageNode(address=address, command="true", upstream=upstream, outs=(), meta=None)


#   a --> b --> d      e, alone
#   a --> c ---/
GRAPH = [node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c"), node("e")]


def make(*, keep_going: bool = False, durations: Mapping[str, float] | None = None) -> Schedule:
    return Schedule(GRAPH, keep_going=keep_going, durations=durations or {})


def list_ready(schedule: Schedule) -> list[str]:
    return [ready.address for ready in schedule.list_ready()]


def test_a_stage_is_ready_when_everything_before_it_is_up_to_date() -> None:
    schedule = make()
    assert list_ready(schedule) == ["a", "e"]
    schedule.start("a")
    assert list_ready(schedule) == ["e"]
    schedule.end("a", Outcome.COMPLETED)
    assert list_ready(schedule) == ["b", "c", "e"]
    schedule.end("b", Outcome.CACHED)
    schedule.start("c")
    assert "d" not in list_ready(schedule)
    schedule.end("c", Outcome.RESTORED)
    assert list_ready(schedule) == ["d", "e"]
    for address in "de":
        schedule.end(address, Outcome.COMPLETED)
    assert schedule.is_over


def test_the_longest_way_to_the_end_is_started_first() -> None:
    schedule = make(durations={"a": 1, "b": 1, "c": 10, "d": 1, "e": 50})
    assert list_ready(schedule) == ["e", "a"]
    schedule.end("a", Outcome.COMPLETED)
    assert list_ready(schedule) == ["e", "c", "b"]


def test_after_a_failure_nothing_starts_and_everything_says_why() -> None:
    schedule = make()
    schedule.end("a", Outcome.COMPLETED)
    schedule.start("b")
    schedule.start("c")
    assert schedule.list_hopeless() == {}
    schedule.end("b", Outcome.FAILED)
    hopeless = schedule.list_hopeless()
    assert hopeless["d"] == "not started: it depends on b, which is Failed"
    assert hopeless["e"].startswith("not started: b failed (--keep-going")
    assert set(hopeless) == {"d", "e"}
    assert schedule.running == {"c"}


def test_keep_going_gives_up_only_what_depends_on_the_failure() -> None:
    schedule = make(keep_going=True)
    schedule.end("a", Outcome.FAILED)
    assert set(schedule.list_hopeless()) == {"b", "c", "d"}
    assert schedule.list_hopeless()["d"] == "not started: it depends on b, which is Skipped"
    assert list_ready(schedule) == ["e"]


def test_after_a_cancellation_nothing_starts() -> None:
    schedule = make(keep_going=True)
    schedule.start("a")
    schedule.cancel()
    assert schedule.list_hopeless()["e"] == "not started: the flow run was cancelled"
    assert "a" not in schedule.list_hopeless()
