from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.evaluation import answering, asking
from cambrian.evaluation.benchmarks import registry
from cambrian.evaluation.reply_log import _CODE, ReplyLog, prompt_key
from cambrian.evaluation.subjects import OwnModel
from cambrian.interfaces import ArtifactError
from tests.evaluation.tiny import PROMPT, evaluate, write_tiny_benchmarks
from tests.pipeline.imports import import_closure

if TYPE_CHECKING:
    from pathlib import Path


def outputs(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("replies.parquet", "scores.json")]


def count_batches(monkeypatch: pytest.MonkeyPatch, *, stop_after: int | None = None) -> list[int]:
    """Let generation note the size of every batch, and end like a killed process after some of them."""
    asked: list[int] = []
    generate = answering.OwnAnswerer.generate

    def count(self: Any, batch: Any, **options: Any) -> list[str]:
        if len(asked) == stop_after:
            raise KeyboardInterrupt
        asked.append(len(batch.input_ids))
        return generate(self, batch, **options)

    monkeypatch.setattr(answering.OwnAnswerer, "generate", count)
    return asked


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3, 4])
def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(
    model: tuple[Path, Path],
    benchmarks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
) -> None:
    evaluate(model, benchmarks, tmp_path / "whole", batch_size=2)
    with monkeypatch.context() as patched:
        count_batches(patched, stop_after=stop_after)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, benchmarks, tmp_path / "stopped", batch_size=2)
    assert not (tmp_path / "stopped" / "replies.parquet").exists()
    again = count_batches(monkeypatch)
    evaluate(model, benchmarks, tmp_path / "stopped", batch_size=2)
    assert outputs(tmp_path / "stopped") == outputs(tmp_path / "whole")
    assert len(again) == 5 - stop_after  # MME 2 + 1, GQA 1 + 1: five batches, each asked once


def test_a_line_cut_within_a_character_costs_its_batch_only(
    model: tuple[Path, Path],
    benchmarks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    evaluate(model, benchmarks, tmp_path, batch_size=2)
    whole = outputs(tmp_path)
    (path,) = (tmp_path / "log").glob("*/*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    asked = count_batches(monkeypatch)
    evaluate(model, benchmarks, tmp_path, batch_size=2)
    assert outputs(tmp_path) == whole
    assert asked == [1]
    assert "ends within a line" in caplog.text
    assert all(json.loads(line)["reply"] is not None for line in path.read_text().splitlines())


def test_a_changed_rule_scores_anew_without_opening_the_model(
    model: tuple[Path, Path],
    benchmarks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = evaluate(model, benchmarks, tmp_path)
    replies = outputs(tmp_path)[0]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr(answering, "open_own_model", refuse)
    assert evaluate(model, benchmarks, tmp_path) == before
    assert outputs(tmp_path)[0] == replies
    lenient = dataclasses.replace(registry.BENCHMARKS["GQA"], match=lambda reply, item: 1.0)
    monkeypatch.setitem(registry.BENCHMARKS, "GQA", lenient)
    assert evaluate(model, benchmarks, tmp_path)["scores"]["GQA"]["with_image"] == 100


@pytest.mark.parametrize("change", ["batch_size", "model", "question"])
def test_what_may_change_replies_asks_again(
    model: tuple[Path, Path],
    benchmarks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    evaluate(model, benchmarks, tmp_path)
    asked = count_batches(monkeypatch)
    if change == "batch_size":
        evaluate(model, benchmarks, tmp_path, batch_size=3)
    elif change == "model":
        manifest = model[0] / "manifest.json"
        text = manifest.read_text()
        try:
            manifest.write_text(text.rstrip() + "\n\n")
            evaluate(model, benchmarks, tmp_path)
        finally:
            manifest.write_text(text)
    else:
        evaluate(model, write_tiny_benchmarks(tmp_path, question="what is it ?"), tmp_path)
    assert len(asked) == (2 if change == "question" else 5 if change == "batch_size" else 4)
    assert len(list((tmp_path / "log").iterdir())) == 1  # the log of the model that is gone is gone too


@pytest.mark.parametrize("count", [2, 5])
def test_batches_dealt_to_several_processes_give_the_replies_of_one(
    model: tuple[Path, Path],
    benchmarks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    evaluate(model, benchmarks, tmp_path / "1", batch_size=1)

    def take_turns(subject: Any, exam: asking.Exam, desk: asking.Desk, processes: int) -> None:
        for index in reversed(range(processes)):  # no process sees what another one is still to write
            for _ in asking._ask_share(subject, exam, desk, asking.Share(index, processes)):
                pass

    monkeypatch.setattr(asking, "_ask_in_processes", take_turns)
    evaluate(model, benchmarks, tmp_path / "n", batch_size=1, processes=count)
    assert outputs(tmp_path / "n") == outputs(tmp_path / "1")
    assert len(list((tmp_path / "n" / "log").glob("*/*.jsonl"))) == count


def test_two_real_processes_answer_everything(
    model: tuple[Path, Path],
    benchmarks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = count_batches(monkeypatch)  # of this process; the others import the module anew
    found = evaluate(model, benchmarks, tmp_path, batch_size=2, processes=2)
    assert asked == []
    assert [found["scores"][name]["items"] for name in ("MME-P", "GQA")] == [4, 3]
    assert len(list((tmp_path / "log").glob("*/*.jsonl"))) == 2


def test_a_process_that_ends_early_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        exitcode = 1

        def __init__(self, **_: Any) -> None: ...

        def start(self) -> None: ...

        def join(self) -> None: ...

        def is_alive(self) -> bool:
            return False

    class Context:
        Process = Ended

    monkeypatch.setattr(asking.multiprocessing, "get_context", lambda kind: Context)
    exam, desk = asking.Exam(tmp_path, {}, (True,)), asking.Desk(tmp_path / "log", 1, "cpu", 1)
    with pytest.raises(ArtifactError, match=r"of 2 processes number 0 \(status 1\), 1 \(status 1\) ended early"):
        asking._ask_in_processes(OwnModel(tmp_path, tmp_path), exam, desk, 2)


def test_where_two_batches_hold_one_prompt_the_earlier_ones_reply_stands(tmp_path: Path) -> None:
    ReplyLog(tmp_path, process=1).add(["a", "b"], ["late", "late"], place=7)
    ReplyLog(tmp_path, process=0).add(["a"], ["early"], place=3)
    ReplyLog(tmp_path, process=2).add(["b"], ["later"], place=9)
    assert [ReplyLog(tmp_path).find(key) for key in "abc"] == ["early", "late", None]


def test_a_broken_line_is_named_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ReplyLog(tmp_path).add(["a"], ["дом 家"], place=0)
    with (tmp_path / "0.jsonl").open("a") as file:
        file.write('{"prompt": "b"}\nnothing\n')
    log = ReplyLog(tmp_path)
    assert (len(log), log.find("a")) == (1, "дом 家")
    assert "line 2 is no reply" in caplog.text
    assert "line 3 is no reply" in caplog.text


def test_words_image_and_length_make_a_prompt_another() -> None:
    prompts = [("q", None), ("q", b""), ("q", b"1"), ("r", None)]
    keys = [prompt_key(prompt, max_new_tokens=2) for prompt in prompts]
    assert len({*keys, prompt_key(("q", None), max_new_tokens=3)}) == 5


def test_an_answer_without_a_log_is_the_same() -> None:
    class Parrot:
        def length(self, prompt: asking.Prompt) -> int:
            return len(prompt[0])

        def prepare(self, prompts: Any) -> Any:
            return [question for question, _ in prompts]

        def generate(self, batch: Any, *, max_new_tokens: int) -> list[str]:
            return [text[:max_new_tokens] for text in batch]

    prompts: list[asking.Prompt] = [("abc", None), ("d", None), ("abc", None)]
    found = asking.answer(Parrot(), prompts, batch_size=1, max_new_tokens=2, what="test")
    assert found == {("abc", None): "ab", ("d", None): "d"}


def test_the_log_of_a_model_depends_on_all_code_that_answers() -> None:
    ground = {f"cambrian/{name}.py" for name in ("artifacts", "interfaces", "params", "runtime")}
    needed = import_closure("cambrian/evaluation/answering.py") - ground
    assert "cambrian/release/templates.py" in needed
    missing = [file for file in needed if not file.startswith(tuple(f"cambrian/{part}" for part in _CODE))]
    assert missing == []
    assert "evaluation/foreign.py" in _CODE  # answers for models of others


def test_a_log_cut_at_any_byte_keeps_its_whole_lines_and_takes_the_rest_again(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    log = ReplyLog(whole)
    texts = {"a": "да", "b": "", "c": 'a "quoted"\nline'}
    for place, (key, text) in enumerate(texts.items()):
        log.add([key], [text], place=place)
    data = (whole / "0.jsonl").read_bytes()
    for cut in range(len(data) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "0.jsonl").write_bytes(data[:cut])
        again = ReplyLog(folder)
        known = [key for key in texts if again.find(key) is not None]
        assert known == list(texts)[: data[:cut].count(b"\n")]
        for place, (key, text) in enumerate(texts.items()):
            if key not in known:
                again.add([key], [text], place=place)
        assert (folder / "0.jsonl").read_bytes() == data


def test_the_fault_of_one_process_is_logged_under_its_number(
    tmp_path: Path, benchmarks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exam = asking.Exam(benchmarks, {"GQA": PROMPT}, (True,))
    desk = asking.Desk(tmp_path / "log", 1, "cpu", 1)
    with pytest.raises(SystemExit) as end:
        asking._work(OwnModel(tmp_path / "gone", tmp_path), exam, desk, asking.Share(1, 2))
    assert end.value.code == 1
    assert "process 1 of 2: " in caplog.text
    assert "gone" in caplog.text
