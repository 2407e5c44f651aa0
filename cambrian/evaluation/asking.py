"""Prompts asked in batches of similar length, by one process or by several that share a log."""

from __future__ import annotations

import logging
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cambrian.evaluation.benchmarks.registry import read_items
from cambrian.evaluation.reply_log import ReplyLog, prompt_key
from cambrian.interfaces import ArtifactError, ParamsError, RecordError, Reply
from cambrian.runtime import iter_progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cambrian.evaluation.answering import Answerer
    from cambrian.evaluation.config import PromptConfig
    from cambrian.evaluation.reply_log import Prompt
    from cambrian.evaluation.subjects import Subject
    from cambrian.interfaces import Item

_log = logging.getLogger("cambrian")

_SHEET_PLACES = 1_000_000
"""More batches than one benchmark has: a batch's place is its sheet's number times this, and its own."""


@dataclass(frozen=True, slots=True)
class Exam:
    """What a model is asked."""

    benchmarks: Path
    prompts: Mapping[str, PromptConfig]
    modes: tuple[bool, ...]
    """With the image, without it, or both."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where and how it is asked."""

    log_folder: Path
    batch_size: int
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class Share:
    """Which batches a process asks: every `count`-th, from `index` on."""

    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """Prompts that are asked together: those of one benchmark in one mode, each once, with their keys in the log."""

    name: str
    keys: Mapping[Prompt, str]
    max_new_tokens: int


_ALONE = Share(0, 1)


def take_exam(
    subject: Subject, exam: Exam, desk: Desk, *, processes: int
) -> Iterator[tuple[str, list[Item], list[Reply]]]:
    """Ask whatever the log lacks; yield each benchmark's name, items and replies, one benchmark in memory at a time.

    The model is not opened where nothing is lacking. Batches are the same whatever the log holds and however many
    processes there are, so that a reply depends on neither.

    Raises:
        ArtifactError: the model, a benchmark, a picture or the log is broken, or a process ended early; what it
            answered stays.
        ValueError: a prompt has a word outside a word-level vocabulary.
    """
    if processes > 1 and not _is_complete(exam, ReplyLog(desk.log_folder)):
        _ask_in_processes(subject, exam, desk, processes)
    yield from _ask_share(subject, exam, desk, _ALONE)


def answer(
    answerer: Answerer, prompts: Sequence[Prompt], *, batch_size: int, max_new_tokens: int, what: str
) -> dict[Prompt, str]:
    """The reply to every prompt, without a log; equal prompts are asked once."""
    sheet = Sheet(what, dict.fromkeys(prompts, ""), max_new_tokens)
    batches = _deal(answerer, sheet, batch_size)
    return {
        prompt: text
        for batch, texts in zip(batches, _answer_batches(answerer, batches, sheet), strict=True)
        for prompt, text in zip(batch, texts, strict=True)
    }


def _ask_share(subject: Subject, exam: Exam, desk: Desk, share: Share) -> Iterator[tuple[str, list[Item], list[Reply]]]:
    log = ReplyLog(desk.log_folder, process=share.index)
    if len(log):
        _log.info("%d replies are in %s already", len(log), desk.log_folder)
    answerer: Answerer | None = None
    for number, (name, prompt) in enumerate(exam.prompts.items()):
        items = read_items(exam.benchmarks, name, prompt)
        replies = []
        for mode in exam.modes:
            sheet = _make_sheet(items, prompt, with_image=mode)
            if any(log.find(key) is None for key in sheet.keys.values()):
                answerer = answerer or _open(subject, desk)
                first = (2 * number + mode) * _SHEET_PLACES
                _ask_sheet(answerer, sheet, log, size=desk.batch_size, share=share, first=first)
            if share == _ALONE:
                replies += [
                    Reply(item.id, _known(log.find(sheet.keys[_prompt(item, with_image=mode)])), mode) for item in items
                ]
        yield name, items, replies


def _open(subject: Subject, desk: Desk) -> Answerer:
    import torch

    torch.set_num_threads(desk.threads)
    return subject.open(desk.device)


def _prompt(item: Item, *, with_image: bool) -> Prompt:
    return item.question, item.image if with_image else None


def _make_sheet(items: Sequence[Item], prompt: PromptConfig, *, with_image: bool) -> Sheet:
    prompts = dict.fromkeys(_prompt(item, with_image=with_image) for item in items)
    keys = {one: prompt_key(one, max_new_tokens=prompt.max_new_tokens) for one in prompts}
    name = f"{items[0].benchmark} {'with' if with_image else 'without'} images"
    return Sheet(name, keys, prompt.max_new_tokens)


def _is_complete(exam: Exam, log: ReplyLog) -> bool:
    return all(
        log.find(key) is not None
        for name, prompt in exam.prompts.items()
        for items in [read_items(exam.benchmarks, name, prompt)]
        for mode in exam.modes
        for key in _make_sheet(items, prompt, with_image=mode).keys.values()
    )


def _ask_sheet(answerer: Answerer, sheet: Sheet, log: ReplyLog, *, size: int, share: Share, first: int) -> None:
    """Ask this process's batches of a sheet, but for those of which every reply is known."""
    mine = [
        (place, batch)
        for place, batch in enumerate(_deal(answerer, sheet, size), start=first)
        if sum(divmod(place, _SHEET_PLACES)) % share.count == share.index  # each sheet begins with another process
        and any(log.find(sheet.keys[prompt]) is None for prompt in batch)
    ]
    texts_of_batches = _answer_batches(answerer, [batch for _, batch in mine], sheet)
    for (place, batch), texts in zip(mine, texts_of_batches, strict=True):
        log.add([sheet.keys[prompt] for prompt in batch], texts, place=place)


def _deal(answerer: Answerer, sheet: Sheet, size: int) -> list[tuple[Prompt, ...]]:
    """Batches of prompts of similar length; within a length, in the order of the sheet."""
    ordered = sorted(sheet.keys, key=answerer.length)
    return [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def _answer_batches(answerer: Answerer, batches: Sequence[tuple[Prompt, ...]], sheet: Sheet) -> Iterator[list[str]]:
    """Yield each batch's replies; pictures of the next batch are prepared while the model works on one."""
    try:
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead = [pool.submit(answerer.prepare, batch) for batch in batches[:1]]
            for number in iter_progress(range(len(batches)), total=len(batches), what=sheet.name):
                ready = ahead.pop().result()
                ahead = [pool.submit(answerer.prepare, batch) for batch in batches[number + 1 : number + 2]]
                yield answerer.generate(ready, max_new_tokens=sheet.max_new_tokens)
    except RecordError as error:
        raise ArtifactError(f"a picture of {sheet.name}: {error}; run `dvc repro build_benchmarks`") from error


def _known(text: str | None) -> str:
    assert text is not None, "every prompt was asked"
    return text


def _ask_in_processes(subject: Subject, exam: Exam, desk: Desk, count: int) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(subject, exam, _with_own_device(desk, index), Share(index, count)))
        for index in range(count)
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                worker.join()
    failed = [f"{index} (status {worker.exitcode})" for index, worker in enumerate(workers) if worker.exitcode]
    if failed:
        raise ArtifactError(
            f"of {count} processes number {', '.join(failed)} ended early: what was answered is kept in "
            f"{desk.log_folder}; see the lines above and run `dvc repro` to go on"
        )


def _work(subject: Subject, exam: Exam, desk: Desk, share: Share) -> None:
    """One process: its share of the batches."""
    try:
        for _ in _ask_share(subject, exam, desk, share):
            pass
    except (ArtifactError, ParamsError) as error:
        logging.basicConfig(level=logging.INFO)
        _log.error("process %d of %d: %s", share.index, share.count, error)
        raise SystemExit(1) from error


def _with_own_device(desk: Desk, index: int) -> Desk:
    """The desk with a CUDA device of its own for the process of this number."""
    if desk.device != "cuda":
        return desk
    import torch

    return replace(desk, device=f"cuda:{index % torch.cuda.device_count()}")
