from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.evaluation.endpoint import Endpoint, serve_judge
from tests.evaluation.tiny import write_tiny_benchmarks, write_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_benchmarks(tmp_path_factory.mktemp("world"))


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A judge's endpoint, which the environment names."""
    with serve_judge() as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.address)
        monkeypatch.setenv("OPENAI_API_KEY", "sesame")
        yield served
