"""Which part of a square grid is picture, and which is the padding that made the picture square."""

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor


def visible_cells(sizes: Int[Tensor, "images 2"], side: int) -> Bool[Tensor, "images side side"]:
    """Return True where a cell of the grid shows picture; `sizes` are original widths and heights.

    Both borders are equal, so that one row of mixed content stays visible where they cannot be. At least the middle
    is visible (the release crashes or hides everything where an image is more elongated than the grid has rows).

    Source: release, `unmask_attention_mask` and `unpad_image`; computed in double precision as there.
    """
    width, height = sizes.to(torch.float64).unbind(1)
    is_wide = width > height
    scale = side / torch.where(is_wide, width, height)
    kept = (torch.where(is_wide, height, width) * scale).to(torch.int64).clamp_min(1)
    border = (side - kept) // 2
    cells = torch.arange(side, device=sizes.device)
    inside = (cells >= border[:, None]) & (cells < side - border[:, None])
    rows = inside | ~is_wide[:, None]
    columns = inside | is_wide[:, None]
    return rows[:, :, None] & columns[:, None, :]


def visible_windows(
    sizes: Int[Tensor, "images 2"], *, queries_per_side: int, window_side: int
) -> Bool[Tensor, "windows window"]:
    """Return which features each query may attend to, ordered as `rearrange_windows` orders the features.

    A window without any visible feature is entirely visible: its query must attend to something, and the LLM does not
    see the result.
    """
    windows = rearrange(
        visible_cells(sizes, queries_per_side * window_side),
        "images (row a) (column b) -> (images row column) (a b)",
        a=window_side,
        b=window_side,
    )
    return windows | ~windows.any(dim=1, keepdim=True)


def are_all_square(sizes: Int[Tensor, "images 2"]) -> bool:
    """Return whether no image has padding, so that nothing needs a mask."""
    return bool((sizes[:, 0] == sizes[:, 1]).all())
