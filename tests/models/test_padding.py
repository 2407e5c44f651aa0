import torch

from cambrian.models.padding import are_all_square, visible_cells, visible_windows


def shown(width: int, height: int, side: int) -> list[str]:
    cells = visible_cells(torch.tensor([[width, height]]), side)[0]
    return ["".join(".x"[int(cell)] for cell in row) for row in cells]


def test_a_square_image_has_no_padding() -> None:
    assert shown(7, 7, 3) == ["xxx", "xxx", "xxx"]
    assert are_all_square(torch.tensor([[7, 7], [3, 3]]))


def test_a_wide_image_is_padded_above_and_below() -> None:
    assert shown(100, 50, 4) == ["....", "xxxx", "xxxx", "...."]


def test_a_tall_image_is_padded_left_and_right() -> None:
    assert shown(50, 100, 4) == [".xx."] * 4


def test_both_borders_are_equal_so_a_mixed_row_stays() -> None:
    # 4 x 3/4 keeps 3 rows; the one row of padding cannot be split in two
    assert shown(100, 75, 4) == ["xxxx"] * 4


def test_the_most_elongated_image_keeps_its_middle() -> None:
    assert shown(1000, 1, 4) == ["....", "xxxx", "xxxx", "...."]
    assert shown(1, 1000, 3) == [".x."] * 3


def test_windows_follow_the_query_grid_and_an_empty_window_sees_all() -> None:
    windows = visible_windows(torch.tensor([[100, 50]]), queries_per_side=2, window_side=2)
    # the upper queries see the lower halves of their windows
    assert windows.int().tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
    hidden = visible_windows(torch.tensor([[100, 50]]), queries_per_side=4, window_side=1)
    assert hidden.all()
