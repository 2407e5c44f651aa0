from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.data.collecting.pools import clean as clean_pool
from tests.data.pools import line, picture, write_pool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    lines = [
        line("a", image="0.png"),
        line("b", source="ChartQA", image="1.png", question="how tall ?"),
        line("c", source="MathInstruct", question="one and one ?", answer="two"),
        line("d", source="ChartQA", image="gone.png"),
        '{"id": "e", "conv',
        {**line("f"), "conversations": [{"from": "gpt", "value": "yes"}]},
    ]
    return write_pool(tmp_path / "pools" / "instruction", lines, {f"{n}.png": picture(n) for n in range(2)})


@pytest.fixture
def clean(pool: Path, tmp_path: Path) -> Path:
    return clean_pool(pool, tmp_path / "clean" / "instruction", max_lost_share=1.0)
