from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.backbones.corpora import write_corpora

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpora(tmp_path_factory.mktemp("pools") / "corpora")
