from __future__ import annotations

import gc
import json
import logging
from pathlib import Path

import pytest

from cambrian import runtime
from cambrian.interfaces import ArtifactError, ParamsError, RecordError
from cambrian.runtime import generator_seed, iter_progress, logged_step, parse_arguments, run_stage


def fail_with(fault: BaseException) -> None:
    raise fault


@pytest.mark.parametrize("fault", [ParamsError("no such run"), ArtifactError("no such folder")])
def test_a_foreseen_fault_ends_with_status_1_and_its_message(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_stage(lambda: fail_with(fault))
    assert ended.value.code == 1
    assert caplog.messages == [str(fault)]


def test_ctrl_c_ends_with_status_130_and_says_that_work_can_go_on(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        run_stage(lambda: fail_with(KeyboardInterrupt()))
    assert ended.value.code == 130
    assert "`dvc repro` continues" in caplog.messages[0]


def test_a_finished_stage_leaves_nothing_for_the_collector_to_walk_at_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gc.unfreeze()
    run_stage(lambda: None)
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    assert frozen > len(gc.get_objects()) // 2


@pytest.mark.parametrize("fault", [ZeroDivisionError("bug"), RecordError("broken", "a record")])
def test_a_bug_keeps_its_traceback(fault: Exception) -> None:
    with pytest.raises(type(fault)):
        run_stage(lambda: fail_with(fault))


def test_a_stage_that_ends_well_leaves_its_cost_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "align@clip-0m")
    run_stage(lambda: None)
    run_stage(lambda: None)
    lines = [json.loads(line) for line in runtime.TIMINGS_PATH.read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["align@clip-0m"] * 2
    assert all(line["peak_mib"] > 0 and line["wall_s"] >= 0 for line in lines)


def test_seeds_of_consumers_differ_and_stay_the_same() -> None:
    assert generator_seed(0, "data order") == 0xC6B8B4E84CA700  # the first seven bytes of SHA-256 of "0/data order"
    assert len({generator_seed(seed, name) for seed in range(3) for name in ("a", "b", "ab")}) == 9
    assert all(0 <= generator_seed(seed, "a") < 2**56 for seed in range(50))


def test_arguments_are_typed_and_all_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["stage", "--run", "clip", "--output-dir", "models/clip"])
    args = parse_arguments("a stage", run=str, output_dir=Path)
    assert (args.run, args.output_dir) == ("clip", Path("models/clip"))


@pytest.mark.parametrize("argv", [["--run", "clip"], ["--run", "a", "--out", "b"], ["--ru", "a", "--output", "b"]])
def test_a_missing_unknown_or_shortened_argument_is_refused(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["stage", *argv])
    with pytest.raises(SystemExit) as ended:
        parse_arguments("a stage", run=str, output=Path)
    assert ended.value.code == 2
    assert "required" in capsys.readouterr().err


def test_progress_yields_every_item_and_logs_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime, "_LOG_INTERVAL_S", 0.0)
    with caplog.at_level(logging.INFO, logger="cambrian"):
        assert list(iter_progress(range(3), total=3, what="training")) == [0, 1, 2]
    assert len(caplog.messages) == 3
    assert caplog.messages[0] == "training: 0 of 3"
    assert caplog.messages[2].startswith("training: 2 of 3, ")


def test_progress_needs_no_total(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cambrian"):
        assert list(iter_progress([], total=None, what="reading")) == []
    assert caplog.messages == []


def test_a_step_is_one_log_line_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cambrian"), logged_step("reading") as facts:
        facts["records"] = 3
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("reading: 0.0 s, records 3")
