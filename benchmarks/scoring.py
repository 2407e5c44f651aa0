"""Scoring of stored replies to multiple-choice items: 100,000 of them are to take at most five seconds.

    python -m benchmarks.scoring

Times are the process's own (seconds of processor). Every round scores the same replies by the paper's rules and, for
comparison, by the strict ones; the score of the paper's rules is known beforehand and checked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import describe_machine
from cambrian.evaluation.benchmarks.registry import find_benchmark
from cambrian.evaluation.metrics import score_credits
from cambrian.evaluation.scoring import grade_replies
from cambrian.evaluation.strict import strict_rule
from cambrian.interfaces import Item, Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

GOAL_S = 5.0
NUM_REPLIES = 100_000
SCORE = "SEED-I"
CHOICES = ("red", "blue", "green", "dark blue")
TEXTS = ("B", "blue", "(b) blue", "The answer is: B.", "a", "I cannot see it", "dark blue", "")
"""In turn; the answer is blue, so half of them are right."""


def make_replies(count: int) -> tuple[list[Item], list[Reply]]:
    """Items of four options and a reply to each."""
    items = [
        Item(f"{SCORE}/{number}", SCORE, "?", CHOICES, ("blue",), "", str(number), None) for number in range(count)
    ]
    return items, [Reply(item.id, TEXTS[number % len(TEXTS)], True) for number, item in enumerate(items)]


def time_published(items: Sequence[Item], replies: Sequence[Reply]) -> float:
    """Seconds to match, grade and score by the paper's rules.

    Raises:
        ValueError: the score is not half of full marks.
    """
    started = time.process_time()
    score, _ = score_credits(find_benchmark(SCORE).metric, items, grade_replies(items, replies, with_image=True))
    taken = time.process_time() - started
    if score != 50:
        raise ValueError(f"the score is {score}, expected 50: the rules changed, or these replies did")
    return taken


def time_strict(items: Sequence[Item], replies: Sequence[Reply]) -> float:
    """Seconds to grade by the strict rules."""
    started = time.process_time()
    rule = strict_rule(find_benchmark(SCORE).match)
    for item, reply in zip(items, replies, strict=True):
        rule(reply.text, item)
    return time.process_time() - started


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, default=NUM_REPLIES, help="a multiple of 8 (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the result here, indented")
    args = parser.parse_args()
    items, replies = make_replies(args.replies)
    taken = [(time_published(items, replies), time_strict(items, replies)) for _ in range(args.rounds)]
    published_s, strict_s = (statistics.median(seconds) for seconds in zip(*taken, strict=True))
    per_goal = published_s * NUM_REPLIES / args.replies
    report = {
        "name": "scoring",
        "ratio": round(GOAL_S / per_goal, 2),
        "goal": 1.0,
        "meets": per_goal <= GOAL_S,
        "published_s": round(published_s, 3),
        "strict_s": round(strict_s, 3),
        "goal_s": GOAL_S,
        "replies": args.replies,
        "machine": describe_machine("cpu"),
        "command": " ".join(["python -m benchmarks.scoring", *sys.argv[1:]]),
    }
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
