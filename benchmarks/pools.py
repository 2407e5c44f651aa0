"""A pool as large as asked: records of about 630 bytes, unequal sources, duplicates, broken lines, a few pictures."""

from __future__ import annotations

import io
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cambrian.artifacts import write_json
from cambrian.data.shards import ShardWriter
from cambrian.data.sources import describe_sources, read_catalog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NUM_PICTURES, PICTURE_SIDE = 2000, 32
RECORDS_AT_ONCE = 50_000
BROKEN_SHARE, COPY_SHARE, RESPELLED_SHARE, PICTURE_SHARE = 0.01, 0.04, 0.01, 0.6
NUM_SENTENCES, WORDS_PER_SENTENCE = 4000, 15


def write_pool(folder: Path, num_records: int, *, num_processes: int) -> int:
    """Write a pool of so many lines, the same bytes each time; returns the bytes of its lines."""
    folder.mkdir(parents=True)
    write_json(folder / "sources.json", describe_sources(read_catalog().instruction))
    with ShardWriter(folder, max_bytes=2**26) as shards:
        for number in range(NUM_PICTURES):
            shards.add(picture_name(number), draw_picture(number))
    starts = [*range(0, num_records, RECORDS_AT_ONCE), num_records]
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(num_processes, mp_context=context) as executor,
        (folder / "records.jsonl").open("wb") as file,
    ):
        for lines in executor.map(write_lines, *zip(*pairwise(starts), strict=True)):
            file.write(lines)
    write_json(folder / "manifest.json", {"files": {}})
    return (folder / "records.jsonl").stat().st_size


def write_lines(start: int, end: int) -> bytes:
    """The lines of the records with these numbers."""
    draw = np.random.default_rng([7, start])
    sentences = make_sentences()
    names, shares = source_shares()
    count = end - start
    sources = draw.choice(len(names), count, p=shares)
    chosen = draw.integers(0, NUM_SENTENCES, (count, 4))
    has_picture = draw.random(count) < PICTURE_SHARE
    fate = draw.random(count)
    lines = []
    for row in range(count):
        number = start + row
        original = number
        if fate[row] < COPY_SHARE + RESPELLED_SHARE and row >= 1000:
            row = row - 1000
            original = start + row
        question, answer, more, last = (sentences[index] for index in chosen[row])
        if COPY_SHARE <= fate[number - start] < COPY_SHARE + RESPELLED_SHARE:
            question, answer = question.upper(), answer + "  "
        lines.append(
            make_line(number, original, names[sources[row]], bool(has_picture[row]), question, answer, more, last)
        )
    for broken in np.flatnonzero(fate > 1 - BROKEN_SHARE).tolist():
        lines[broken] = break_line(lines[broken], broken % 5)
    return ("\n".join(lines) + "\n").encode()


def make_line(
    number: int, original: int, source: str, has_picture: bool, question: str, answer: str, more: str, last: str
) -> str:
    """One line of the release's format; its words follow from `original`."""
    image = f'"image": "{picture_name(original % NUM_PICTURES)}", ' if has_picture else ""
    marker = "<image>\\n" if has_picture else ""
    return (
        f'{{"id": "{(number * 2654435761) % 2**32:08x}-{number}", {image}"conversations": '
        f'[{{"from": "human", "value": "{marker}{question} {original}?"}}, {{"from": "gpt", "value": "{answer}"}}, '
        f'{{"from": "human", "value": "{more}?"}}, {{"from": "gpt", "value": "{last}"}}], "source": "{source}"}}'
    )


def break_line(line: str, kind: int) -> str:
    """One of five common faults."""
    if kind == 0:
        return line[: len(line) // 2]
    if kind == 1:
        return line.replace('"from": "gpt"', '"from": "human"')
    if kind == 2:
        return line.replace('"source": "', '"source": "no such ')
    if kind == 3:
        return line.replace('"image": "', '"image": "gone-')
    return line.replace('"value": "', '"text": "')


def make_sentences() -> list[str]:
    """Sentences of common lengths, some of them not ASCII."""
    draw = np.random.default_rng(3)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(draw.choice(letters[:20], size)) for size in draw.integers(2, 11, 3000)]
    words += ["café", "naïve", "größe", "東京"]
    lengths = draw.integers(WORDS_PER_SENTENCE - 8, WORDS_PER_SENTENCE + 9, NUM_SENTENCES)
    return [" ".join(words[index] for index in draw.integers(0, len(words), length)) for length in lengths]


def source_shares() -> tuple[list[str], Sequence[float]]:
    """The published sources and what share of the pool each is."""
    sources = read_catalog().instruction
    sizes = np.array([source.thousands for source in sources.values()])
    return [json.dumps(name)[1:-1] for name in sources], sizes / sizes.sum()


def picture_name(number: int) -> str:
    """Where a picture of the pool lies."""
    return f"pictures/{number // 100:03d}/{number:06d}.png"


def draw_picture(number: int) -> bytes:
    """A PNG of blocks, another for every number."""
    blocks = np.random.default_rng([11, number]).integers(0, 256, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.NEAREST).save(buffer, format="PNG")
    return buffer.getvalue()
