from __future__ import annotations

import time
from pathlib import Path

import pytest

from flows.outputs import Outputs


@pytest.mark.parametrize(
    ("path", "touches"),
    [
        ("/work/models/small", True),
        ("/work/models/small/weights/1.bin", True),
        ("/work/models", True),
        ("/", True),
        ("/work/models/small.txt", False),
        ("/work/models/smaller/weights", False),
        ("/work/scores.json", True),
        ("/work/scores", False),
        ("/data", False),
    ],
)
def test_a_path_is_an_output_lies_in_one_or_holds_one(path: str, touches: bool) -> None:
    assert Outputs(["/work/models/small", Path("/work/scores.json")]).touch(Path(path)) is touches


def test_nothing_touches_no_outputs() -> None:
    assert not Outputs([]).touch(Path("/"))


def test_thousands_of_questions_about_thousands_of_outputs_take_no_minutes() -> None:
    """Going through all outputs for each of them took two minutes of a run of 470 stages, and a minute here."""
    outputs = Outputs(f"/work/models/{number}/weights" for number in range(3000))
    started = time.process_time()
    assert not any(outputs.touch(Path(f"/work/data/{number}/pool")) for number in range(3000))
    assert time.process_time() - started < 5
