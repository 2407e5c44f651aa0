"""The connector of the paper: query groups through stacked spatial vision aggregators."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from cambrian.models.aggregator import Aggregator, Evidence, rearrange_windows
from cambrian.models.connector import Connector, FeatureShape, Visual, group_maps
from cambrian.models.encoders import resize_map
from cambrian.models.joined_maps import JoinedLinear
from cambrian.models.padding import are_all_square, visible_cells, visible_windows


class SVAConnector(Connector):
    """Per query group a grid of queries, all the same learned vector, that attends to its cells of every encoder.

    Groups run in parallel; a group on another grid than the final one is interpolated to it; groups are joined along
    channels and projected by a two-layer MLP.

    Source: paper, section 3.2; release, `cambrian_arch.py`.
    """

    def __init__(
        self,
        shapes: Sequence[FeatureShape],
        *,
        side: int,
        depth: int,
        group_sides: Sequence[int],
        dim: int,
        num_heads: int,
        max_window_side: int,
        llm_dim: int,
        has_aggregators: bool,
        skip_hidden: bool = False,
    ) -> None:
        """Make the connector.

        `skip_hidden` leaves out the queries whose cells lie in padding; their tokens are zero, so the layout must hide
        them. What is visible does not change.
        """
        super().__init__()
        self.side = side
        self.num_tokens = side**2
        self.group_sides = list(group_sides)
        self.has_aggregators = has_aggregators
        self.skip_hidden = skip_hidden
        self.shapes = list(shapes)
        self.window_sides = [max(1, min(shape.grid // side, max_window_side)) for shape in shapes]
        """Features per side of a cell of the final grid, for each encoder."""
        self.map_sides = [side * window for window in self.window_sides]
        self.projections = nn.ModuleList(
            nn.Sequential(JoinedLinear(shape.channels, dim), nn.GELU(), nn.Linear(dim, dim), nn.LayerNorm(dim))
            for shape in shapes
        )
        self.queries = nn.Parameter(torch.randn(len(self.group_sides), dim) * dim**-0.5)
        self.groups = nn.ModuleList(
            Aggregator(
                depth=depth,
                query_dim=dim,
                dim=dim,
                context_dim=dim,
                window_sides=self._windows_of(group_side),
                num_heads=num_heads,
            )
            for group_side in self.group_sides
        )
        self.output = nn.Sequential(
            nn.Linear(dim * len(self.group_sides), llm_dim), nn.GELU(), nn.Linear(llm_dim, llm_dim)
        )

    def forward(self, features: list[Tensor], sizes: Int[Tensor, "images 2"]) -> Visual:
        """Return one visual token per cell, and what aggregators inside the LLM attend to."""
        maps = [self._project(index, layers) for index, layers in enumerate(group_maps(features, self.shapes))]
        context = maps[0].mean(dim=(1, 2))
        needed = {*self.group_sides, self.side} if self.has_aggregators else set(self.group_sides)
        evidence = {side: self._gather(maps, context, sizes, side) for side in sorted(needed)}
        groups = [
            self._run_group(index, evidence[side], images=len(context)) for index, side in enumerate(self.group_sides)
        ]
        tokens = self._output(torch.cat(groups, dim=-1), self._rows(sizes, self.side))
        return Visual(tokens, evidence[self.side] if self.has_aggregators else None)

    def _output(
        self, tokens: Float[Tensor, "images tokens dim"], rows: Int[Tensor, " rows"] | None
    ) -> Float[Tensor, "images tokens llm_dim"]:
        """Project to the LLM's width; tokens that are left out become zero."""
        flat = tokens.flatten(0, 1)
        projected: Tensor = self.output(flat if rows is None else flat[rows])
        if rows is not None:
            projected = projected.new_zeros(len(flat), projected.shape[1]).index_copy(0, rows, projected)
        return projected.view(*tokens.shape[:2], -1)

    def _project(self, index: int, maps: list[Tensor]) -> Float[Tensor, "images side side dim"]:
        """Bring an encoder's maps to their grid, each once, before or after the first layer, whichever is cheaper."""
        side = self.map_sides[index]
        if len(maps) == 1 and maps[0].shape[-1] == side:  # nothing to resize
            projected: Tensor = self.projections[index][1:](  # type: ignore[index]
                nn.functional.linear(
                    rearrange(maps[0], "images channels row column -> images row column channels"),
                    self.projections[index].get_parameter("0.weight"),
                    self.projections[index].get_parameter("0.bias"),
                )
            )
            return projected
        first, *rest = self.projections[index].children()
        hidden: Tensor = first(maps, side)
        for layer in rest:
            hidden = layer(hidden)
        return rearrange(hidden, "images (row column) dim -> images row column dim", row=side)

    def _gather(
        self, maps: list[Tensor], context: Float[Tensor, "images dim"], sizes: Int[Tensor, "images 2"], side: int
    ) -> Evidence:
        rows = self._rows(sizes, side)
        windows = [rearrange_windows(feature_map, side) for feature_map in maps]
        image = torch.arange(len(context), device=context.device).repeat_interleave(side**2)
        mask = None
        if not are_all_square(sizes):
            visible = [visible_windows(sizes, queries_per_side=side, window_side=w) for w in self._windows_of(side)]
            mask = torch.cat(visible, dim=1)
            if rows is not None:
                windows, mask, image = [window[rows] for window in windows], mask[rows], image[rows]
        evidence = Evidence(features=torch.cat(windows, dim=1), mask=mask, context=context[image], rows=rows)
        evidence.standardised = evidence.standardise(
            [window.shape[1] for window in windows], rows_per_context=image.bincount(minlength=len(context))
        )
        return evidence

    def _rows(self, sizes: Int[Tensor, "images 2"], side: int) -> Int[Tensor, " rows"] | None:
        """Return the cells of a grid on which a visible token depends; None where all are to be computed.

        A group on a coarser or finer grid is interpolated, so a visible cell of the final grid also draws on cells
        beside it that lie in padding.
        """
        if not self.skip_hidden or are_all_square(sizes):
            return None
        # bilinear interpolation reads the cells that lie less than one cell from where a final cell's centre falls
        centres = (torch.arange(self.side, device=sizes.device) + 0.5) * side / self.side - 0.5
        reads = ((centres[:, None] - torch.arange(side, device=sizes.device)).abs() < 1).float()
        visible = visible_cells(sizes, self.side).float()
        return (reads.T @ visible @ reads).flatten().nonzero().squeeze(1)

    def _run_group(self, index: int, evidence: Evidence, *, images: int) -> Float[Tensor, "images tokens dim"]:
        side = self.group_sides[index]
        queries = self.queries[index].expand(images * side**2, -1)
        tokens: Tensor = rearrange(
            self.groups[index](queries, evidence), "(images cells) dim -> images cells dim", images=images
        )
        if side == self.side:
            return tokens
        grid = rearrange(tokens, "images (row column) dim -> images dim row column", row=side)
        resized: Tensor = rearrange(resize_map(grid, self.side), "images dim row column -> images (row column) dim")
        return resized

    def _windows_of(self, group_side: int) -> list[int]:
        for side in self.map_sides:
            if side % group_side:
                raise ValueError(
                    f"a query group of {group_side} x {group_side} does not divide an encoder's {side} x {side} map: "
                    "choose group_sides that divide side times every window"
                )
        return [side // group_side for side in self.map_sides]
