from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cambrian.data.engine import web as web_module
from cambrian.data.engine.language_model import parse_json
from cambrian.data.engine.pictures import to_png
from cambrian.data.engine.recording import Recording, Reply, Request
from cambrian.data.engine.run import run_engine
from cambrian.data.engine.web import Web
from cambrian.interfaces import ArtifactError, RecordError
from tests.data.engine import site
from tests.data.engine.params import engine
from tests.data.engine.test_engine import digests, reasons

if TYPE_CHECKING:
    from pathlib import Path

    from tests.data.engine.site import World


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the engine makes, none of which passes."""
    made: list[float] = []

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            made.append(seconds)
            self.now += seconds

    monkeypatch.setattr(web_module, "time", Clock())
    return made


def test_every_request_says_who_asks_and_robots_comes_first(world: World, tmp_path: Path) -> None:
    web = Web(engine(world.url), Recording(tmp_path))
    web.get(f"{world.url}/wiki/Yeast")
    web.get(f"{world.url}/wiki/Pendulum")
    assert world.asked == ["/robots.txt", "/wiki/Yeast", "/wiki/Pendulum"]
    assert world.agents == {"cambrian-engine (someone@example.org)"}


def test_between_two_requests_to_a_host_lies_its_interval(world: World, tmp_path: Path, sleeps: list[float]) -> None:
    web = Web(engine(world.url, crawl__min_interval_s=0.5), Recording(tmp_path))
    for name in ("Yeast", "Pendulum", "Leaf_cell"):
        web.get(f"{world.url}/wiki/{name}")
    assert sleeps == [0.5, 0.5, 0.5]
    web.get(f"{world.url}/wiki/Yeast")  # recorded: nobody is asked, nobody waits
    assert len(sleeps) == 3


def test_a_longer_crawl_delay_counts_more(
    world: World, tmp_path: Path, sleeps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "ROBOTS", "User-agent: *\nCrawl-delay: 7\n")
    web = Web(engine(world.url, crawl__min_interval_s=0.5), Recording(tmp_path))
    for name in ("Yeast", "Pendulum", "Leaf_cell"):
        web.get(f"{world.url}/wiki/{name}")
    assert sleeps == [0.5, 7.0, 7.0]


def test_what_robots_forbids_and_what_is_on_other_hosts_is_never_asked_for(world: World, tmp_path: Path) -> None:
    web = Web(engine(world.url), Recording(tmp_path))
    for url, reason in {
        f"{world.url}/wiki/Hidden_nest": "forbidden-by-robots",
        "http://127.0.0.1:9/secret": "foreign-host",
        "file:///etc/passwd": "foreign-host",
    }.items():
        with pytest.raises(RecordError) as caught:
            web.get(url)
        assert caught.value.reason == reason
    assert world.asked == ["/robots.txt"]


def test_a_reply_without_end_is_given_up(world: World, tmp_path: Path) -> None:
    web = Web(engine(world.url, crawl__max_bytes=500), Recording(tmp_path))
    with pytest.raises(RecordError) as caught:
        web.get(f"{world.url}/wiki/Lens")
    assert caught.value.reason == "reply-too-large"


def test_a_busy_endpoint_is_asked_again_after_what_it_says(world: World, tmp_path: Path, sleeps: list[float]) -> None:
    world.busy = 2
    config = engine(world.url, crawl__retry_wait_s=1.0)
    run_engine(config, recording=tmp_path / "recording", output=tmp_path / "pool")
    assert sleeps == [1.0, 2.0]
    assert world.counts["topics Physics"] == 3


@pytest.mark.parametrize("policy", ["fail", "skip-and-record"])
def test_an_endpoint_that_stays_busy_stops_the_stage_or_is_written_down(
    world: World, tmp_path: Path, sleeps: list[float], policy: str
) -> None:
    world.busy = 3
    config = engine(world.url, policies__answer=policy)
    if policy == "fail":
        with pytest.raises(ArtifactError, match=r"Physics: unanswered: .*answers 429.*policies\.answer"):
            run_engine(config, recording=tmp_path / "recording", output=tmp_path / "pool")
        return
    run_engine(config, recording=tmp_path / "recording", output=tmp_path / "pool")
    assert reasons(tmp_path / "pool")["Physics"] == "unanswered"
    replay = engine(world.url, mode="replay", policies__answer=policy)
    run_engine(replay, recording=tmp_path / "recording", output=tmp_path / "again")
    assert digests(tmp_path / "again") == digests(tmp_path / "pool")
    run_engine(config, recording=tmp_path / "recording", output=tmp_path / "later")  # not busy any more
    assert "Physics" not in reasons(tmp_path / "later")


@pytest.mark.parametrize("policy", ["fail", "skip-and-record"])
def test_nonsense_is_asked_about_once_more_and_then_follows_the_policy(
    world: World, tmp_path: Path, policy: str
) -> None:
    caption = "Green bodies within a leaf cell"
    world.silent.add(caption)
    config = engine(world.url, policies__answer=policy)
    if policy == "fail":
        with pytest.raises(ArtifactError, match=r"cell\.png: nonsense-answer: asker .* 2 times: .* is not JSON"):
            run_engine(config, recording=tmp_path / "recording", output=tmp_path / "pool")
        return
    run_engine(config, recording=tmp_path / "recording", output=tmp_path / "pool")
    assert reasons(tmp_path / "pool")["cell.png"] == "nonsense-answer"
    assert world.counts[f"question {caption}"] == 2


def test_too_many_questions_that_come_to_nothing_stop_the_stage(world: World, tmp_path: Path) -> None:
    world.silent.add("Green bodies within a leaf cell")
    config = engine(world.url, policies__max_lost_share=0.1)
    with pytest.raises(ArtifactError, match=r"1 of 6 questions came to nothing, .* allows 10\.0%"):
        run_engine(config, recording=tmp_path / "recording", output=tmp_path / "pool")


def test_recording_without_a_key_says_which_variable_is_missing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENGINE_TEST_KEY")
    with pytest.raises(ArtifactError, match="the environment has no ENGINE_TEST_KEY"):
        run_engine(engine(world.url), recording=tmp_path / "recording", output=tmp_path / "pool")


def test_a_broken_recording_is_named(tmp_path: Path) -> None:
    Recording(tmp_path).add(Request("http://a/b"), Reply(200, {}, b"text"))
    (body,) = (tmp_path / "bodies").iterdir()
    body.write_bytes(b"other")
    with pytest.raises(ArtifactError, match="is not what was recorded"):
        Recording(tmp_path).find(Request("http://a/b"), only_final=True)
    index = tmp_path / "index.jsonl"
    index.write_text("{\n" + index.read_text())
    with pytest.raises(ArtifactError, match=r"index\.jsonl, line 1 is no exchange"):
        Recording(tmp_path)


def test_an_answer_is_read_from_its_fence() -> None:
    assert parse_json('Sure!\n```json\n{"a": 1}\n```\nAnything else?') == {"a": 1}
    with pytest.raises(ValueError, match="is not JSON"):
        parse_json("Sure!")


@pytest.mark.parametrize(
    "inner",
    ['<image href="file:///etc/passwd"/>', "<style>@import 'http://a/b.css';</style>", '<use href="http://a/#b"/>'],
)
def test_an_svg_that_refers_to_anything_outside_is_refused(inner: str) -> None:
    data = f'<svg xmlns="http://www.w3.org/2000/svg" width="50" height="50">{inner}</svg>'.encode()
    with pytest.raises(RecordError) as caught:
        to_png(data, name="a.svg", min_side=8, max_pixels=10_000)
    assert caught.value.reason == "linked-image"
