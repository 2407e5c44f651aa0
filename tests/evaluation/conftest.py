from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.evaluation.tiny import write_tiny_benchmarks, write_tiny_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_benchmarks(tmp_path_factory.mktemp("world"))
