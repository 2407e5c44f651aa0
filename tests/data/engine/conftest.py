from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.data.engine.site import World, serve

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("ENGINE_TEST_KEY", "secret")
    with serve(World()) as serving:
        yield serving
