from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from pyarrow import parquet

from cambrian.artifacts import read_json
from cambrian.data.engine.run import run_engine
from cambrian.data.records import read_records
from cambrian.data.shards import ImageStore
from cambrian.interfaces import ArtifactError
from tests.data.collecting.pools import clean
from tests.data.engine.params import engine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.data.engine.site import World


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def reasons(folder: Path) -> dict[str, str]:
    """What was left out, by the last part of its name."""
    rows = parquet.read_table(folder / "dropped.parquet").to_pylist()
    return {row["id"].rpartition("/")[2]: row["reason"] for row in rows}


def digests(folder: Path) -> dict[str, str]:
    return {name: facts["sha256"] for name, facts in read_json(folder / "manifest.json")["files"].items()}


def test_the_whole_engine_makes_a_pool_that_the_next_stage_takes(world: World, tmp_path: Path) -> None:
    run_engine(engine(world.url), recording=tmp_path / "recording", output=tmp_path / "pool")
    records = read_lines(tmp_path / "pool" / "records.jsonl")
    assert [record["conversations"][1]["value"] for record in records] == [
        "Light behind a convex lens meets in the focus",
        "White light leaves the prism in colours",
        "Bands of colours, red first",
        "A pendulum at both ends of its swing",
        "Green bodies within a leaf cell",
        "Yeast cells while budding",
    ]
    assert {record["source"] for record in records} == {"Data Engine"}
    with ImageStore(tmp_path / "pool") as store:
        pictures = [Image.open(io.BytesIO(store.read(record["image"]))) for record in records]
    assert {(picture.format, picture.mode) for picture in pictures} == {("PNG", "RGB")}
    assert pictures[1].size == (80, 60)
    clean(tmp_path / "pool", tmp_path / "clean", max_lost_share=0.0)
    assert len(read_records(tmp_path / "clean" / "records.parquet")) == 6
    origins = read_lines(tmp_path / "pool" / "provenance.jsonl")
    assert origins[1]["picture"] == f"{world.url}/prism.svg"
    assert origins[1]["topic"] == "Physics/optics/Prism or Spectrum"
    assert origins[0]["page"] == f"{world.url}/wiki/Lens"


def test_everything_that_is_left_out_has_a_reason_and_every_step_adds_up(world: World, tmp_path: Path) -> None:
    run_engine(engine(world.url), recording=tmp_path / "recording", output=tmp_path / "pool")
    assert reasons(tmp_path / "pool") == {
        "Hidden_nest": "forbidden-by-robots",
        "Lens#Use": "too-few-words",
        "Leaf_cell#Wall": "no-picture",
        "cat.png": "off-topic-caption",
        "tiny.png": "small-image",
        "gone.png": "not-found",
        "broken.png": "undecodable-image",
    }
    steps = read_json(tmp_path / "pool" / "ledger.json")["steps"]
    assert [step["step"] for step in steps] == [
        "topics of fields",
        "pages of topics",
        "pages",
        "sections",
        "pictures",
        "questions",
    ]
    assert all(step["in"] == step["out"] + sum(step["dropped"].values()) for step in steps)
    assert not any("old" in path or "stone" in path or "Hidden_nest" in path.partition("?")[0] for path in world.asked)


def test_a_replay_needs_neither_network_nor_key_and_gives_the_same_bytes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.busy = 1
    run_engine(engine(world.url), recording=tmp_path / "recording", output=tmp_path / "first")
    asked = len(world.asked)
    monkeypatch.delenv("ENGINE_TEST_KEY")
    replay = engine(world.url, mode="replay")
    run_engine(replay, recording=tmp_path / "recording", output=tmp_path / "second")
    assert len(world.asked) == asked
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    assert len(digests(tmp_path / "first")) == 7
    recorded = "".join(
        path.read_text(errors="replace") for path in (tmp_path / "recording").rglob("*") if path.is_file()
    )
    assert "secret" not in recorded
    assert world.keys == {"Bearer secret"}


def test_a_replay_says_what_the_recording_lacks(world: World, tmp_path: Path) -> None:
    run_engine(engine(world.url), recording=tmp_path / "recording", output=tmp_path / "first")
    changed = engine(world.url, mode="replay", model__questions_model="another")
    with pytest.raises(ArtifactError, match=r"no reply to .*chat/completions.*set engine\.mode to record"):
        run_engine(changed, recording=tmp_path / "recording", output=tmp_path / "second")
    assert not (tmp_path / "second").exists()


STEPS = ["topics Biology", "/prism.svg", "question Green bodies within a leaf cell"]


@pytest.mark.parametrize("moment", STEPS)
def test_an_engine_that_was_killed_goes_on_without_asking_anything_twice(
    world: World, tmp_path: Path, moment: str
) -> None:
    config = engine(world.url)
    program = (
        "import sys; from pathlib import Path\n"
        "from cambrian.data.engine.config import EngineConfig\nfrom cambrian.data.engine.run import run_engine\n"
        "config = EngineConfig.model_validate_json(sys.argv[1])\n"
        "run_engine(config, recording=Path(sys.argv[2]), output=Path(sys.argv[3]))"
    )
    command = [
        sys.executable,
        "-c",
        program,
        config.model_dump_json(),
        str(tmp_path / "recording"),
        str(tmp_path / "out"),
    ]
    with subprocess.Popen(command, env={**os.environ, "ENGINE_TEST_KEY": "secret"}) as process:

        def kill(what: str) -> None:
            if what.startswith(moment):
                os.kill(process.pid, signal.SIGKILL)

        world.on_request = kill
        assert process.wait(300) == -signal.SIGKILL
    world.on_request = lambda _: None
    assert not (tmp_path / "out").exists()
    run_engine(config, recording=tmp_path / "recording", output=tmp_path / "out")
    run_engine(config, recording=tmp_path / "whole", output=tmp_path / "at-once")
    assert digests(tmp_path / "out") == digests(tmp_path / "at-once")
    # Every question twice, once for each of the two, and the one in the air when the process died once more.
    # Yeast is asked about twice each time, since its first answer is nonsense.
    extra = {what: count for what, count in world.counts.items() if count != 2 and "Yeast cells" not in what}
    assert len(extra) == 1
    assert next(iter(extra)).startswith(moment)
    assert set(extra.values()) == {3}


def test_a_torn_last_line_of_the_recording_is_dropped(world: World, tmp_path: Path) -> None:
    run_engine(engine(world.url), recording=tmp_path / "recording", output=tmp_path / "first")
    index = tmp_path / "recording" / "index.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole[:-20])
    asked = len(world.asked)
    run_engine(engine(world.url), recording=tmp_path / "recording", output=tmp_path / "second")
    assert len(world.asked) == asked + 1
    assert index.read_bytes() == whole
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
