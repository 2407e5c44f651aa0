from __future__ import annotations

import pytest

from cambrian.training.resumable import look_ahead


@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_items_come_in_order_and_are_announced_before(count: int) -> None:
    announced: list[int] = []
    seen = []
    for item in look_ahead(range(5), count, announced.append):
        assert len(announced) == (min(item + count + 1, 5) if count else 0)
        seen.append(item)
    assert seen == list(range(5))


def test_nothing_is_read_further_than_asked() -> None:
    def endless() -> object:
        yield from range(3)
        raise AssertionError("read too far")

    items = look_ahead(endless(), 1, lambda item: None)  # type: ignore[arg-type]
    assert [next(items), next(items)] == [0, 1]
