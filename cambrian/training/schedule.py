"""How the learning rate goes over a phase's steps."""

from __future__ import annotations

import math
from typing import Literal


def rate_factor(step: int, num_steps: int, warmup_ratio: float, kind: Literal["cosine", "linear"]) -> float:
    """What the highest rate is multiplied by at a step, counted from 0.

    It rises linearly to 1 at the last step of the warm-up and falls to 0 just after the last step, so that no step is
    wasted on a rate of 0.
    """
    num_warmup_steps = math.ceil(warmup_ratio * num_steps)
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    done = (step + 1 - num_warmup_steps) / (num_steps + 1 - num_warmup_steps)
    return 1 - done if kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))
