"""Scenes: solids at known positions before a camera, and the ray-caster that draws them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cambrian.data.world.words import CLASS_IDS, COLOURS, COLUMNS, DEPTHS, GRID_SIDE, SHAPES, cell_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from cambrian.data.world.config import SceneConfig

BACKGROUND_DEPTH = 8.0
_LIGHT = np.array([-0.42, 0.66, -0.62], dtype=np.float32)
_AMBIENT = 0.42
_CUBE_PITCH = 0.5
_CUBE_HALF_EDGE = 0.66
_CONE_BASE = 0.92


@dataclass(frozen=True, slots=True)
class Solid:
    """One solid of a scene."""

    colour: str
    shape: str
    position: tuple[float, float, float]
    """x to the right, y up, z away from the camera, which is at the origin."""
    radius: float
    turn: float
    """Radians about the vertical axis."""
    screen: tuple[float, float]
    """Where the centre is seen: from the left and from the top, in picture sides."""
    cell: int
    """Row by row."""
    depth: str

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the solid's bounding ball on the screen, in picture sides."""
        half = self.radius / self.position[2]
        across, down = self.screen
        return across - half, down - half, across + half, down + half

    @property
    def column(self) -> str:
        """The column word of the cell."""
        return cell_words(self.cell)[1]

    @property
    def row(self) -> str:
        """The row word of the cell."""
        return cell_words(self.cell)[0]

    @property
    def class_name(self) -> str:
        """The name of the solid's class in segmentations and labels."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Solids of different colours in different cells, by cell."""

    solids: tuple[Solid, ...]
    background: tuple[float, float]
    """The grey, 0 to 1, at the top and at the bottom."""
    farthest: float
    """Where the fog is thickest."""
    fog: float
    grain: int
    """The seed of the picture's grain."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A picture and what is known of every pixel."""

    pixels: npt.NDArray[np.uint8]
    """(row, column, channel)"""
    segmentation: npt.NDArray[np.uint8]
    """(row, column)"""
    depth: npt.NDArray[np.float32]
    """(row, column)"""


def sample_scene(rng: np.random.Generator, config: SceneConfig, num_solids: int | None = None) -> Scene:
    """Draw a scene with this many solids, or with any number from 1 to `max_solids`."""
    number = num_solids if num_solids is not None else int(rng.integers(1, config.max_solids + 1))
    places = _sample_places(rng, config, number)
    colours = rng.permutation(len(COLOURS))
    names = tuple(COLOURS)
    solids = []
    for index, (cell, across, down) in enumerate(places):
        solids.append(
            place_solid(
                config,
                colour=names[colours[index]],
                shape=SHAPES[rng.integers(len(SHAPES))],
                cell=cell,
                screen=(across, down),
                depth=DEPTHS[rng.integers(len(DEPTHS))],
                within=float(rng.random()),
                radius=float(rng.uniform(*config.radius)),
                turn=float(rng.uniform(0.2, 1.3)),
            )
        )
    top = float(rng.uniform(0.18, 0.42))
    return Scene(
        solids=tuple(sorted(solids, key=lambda solid: solid.cell)),
        background=(top, top + float(rng.uniform(0.05, 0.25))),
        farthest=config.depths[DEPTHS[-1]][1],
        fog=config.fog,
        grain=int(rng.integers(2**32)),
    )


def place_solid(
    config: SceneConfig,
    *,
    colour: str,
    shape: str,
    cell: int,
    screen: tuple[float, float],
    depth: str,
    within: float,
    radius: float,
    turn: float,
) -> Solid:
    """A solid that is seen at `screen`, the share `within` of the way through its depth word's range."""
    nearest, farthest = config.depths[depth]
    z = nearest + within * (farthest - nearest)
    return Solid(
        colour=colour,
        shape=shape,
        position=((screen[0] - 0.5) * z, (0.5 - screen[1]) * z, z),
        radius=radius,
        turn=turn,
        screen=screen,
        cell=cell,
        depth=depth,
    )


def render_scene(scene: Scene, side: int) -> Rendering:
    """Cast one ray through the centre of each of side**2 pixels."""
    rays = _rays(side)
    count = side * side
    nearest = np.full(count, BACKGROUND_DEPTH, dtype=np.float32)
    colour = np.empty((3, count), dtype=np.float32)
    top, bottom = scene.background
    colour[:] = np.repeat(np.linspace(top, bottom, side, dtype=np.float32), side)
    background = colour.copy()
    segmentation = np.zeros(count, dtype=np.uint8)
    for solid in scene.solids:
        distance, normal = _CASTERS[solid.shape](rays, solid)
        hit = np.flatnonzero(distance < nearest)
        nearest[hit] = distance[hit]
        segmentation[hit] = CLASS_IDS[solid.class_name]
        light = _AMBIENT + (1 - _AMBIENT) * np.maximum(_LIGHT @ normal[:, hit], 0.0)
        paint = np.array(COLOURS[solid.colour], dtype=np.float32)[:, None] / 255 * light
        fog = scene.fog * solid.position[2] / scene.farthest
        colour[:, hit] = paint * (1 - fog) + background[:, hit] * fog
    return Rendering(
        pixels=np.ascontiguousarray((colour * 255).clip(0, 255).astype(np.uint8).T.reshape(side, side, 3)),
        segmentation=segmentation.reshape(side, side),
        depth=nearest.reshape(side, side),
    )


def distance(left: Solid, right: Solid) -> float:
    """How far apart the centres of two solids are in space."""
    return math.dist(left.position, right.position)


def _sample_places(rng: np.random.Generator, config: SceneConfig, number: int) -> list[tuple[int, float, float]]:
    """Cells and screen positions of so many solids, none too near to another."""
    places: list[tuple[int, float, float]] = []
    while len(places) < number:
        places.clear()
        for cell in rng.permutation(GRID_SIDE**2).tolist():
            row, column = divmod(cell, GRID_SIDE)
            shift = rng.uniform(-config.max_offset, config.max_offset, 2)
            across = (column + 0.5) / len(COLUMNS) + float(shift[0])
            down = (row + 0.5) / GRID_SIDE + float(shift[1])
            if _is_clear(across, down, places, config.min_centre_distance):
                places.append((cell, across, down))
            if len(places) == number:
                break
    return places


def _is_clear(across: float, down: float, places: Sequence[tuple[int, float, float]], min_distance: float) -> bool:
    return all(math.hypot(across - other, down - beneath) >= min_distance for _, other, beneath in places)


@functools.lru_cache(maxsize=4)
def _rays(side: int) -> npt.NDArray[np.float32]:
    """The direction of each pixel's ray, with z = 1: (3, pixels)."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    down, across = np.meshgrid(-steps, steps, indexing="ij")
    return np.stack([across.ravel(), down.ravel(), np.ones(side * side, dtype=np.float32)])


def _cast_ball(rays: npt.NDArray[np.float32], solid: Solid) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The distance to the ball along each ray (infinite where it misses) and the normals there."""
    centre = np.array(solid.position, dtype=np.float32)
    along = centre @ rays
    square = (rays * rays).sum(axis=0)
    root = along * along - square * (centre @ centre - solid.radius**2)
    distance = np.where(root >= 0, (along - np.sqrt(np.maximum(root, 0))) / square, np.inf).astype(np.float32)
    points = rays * np.where(root >= 0, distance, 0) - centre[:, None]
    return distance, (points / solid.radius).astype(np.float32)


def _cast_cube(rays: npt.NDArray[np.float32], solid: Solid) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """As for the ball; the cube is turned about the vertical axis and leans towards the camera."""
    cosine, sine = math.cos(solid.turn), math.sin(solid.turn)
    lean, tilt = math.cos(_CUBE_PITCH), math.sin(_CUBE_PITCH)
    yaw = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    pitch = np.array([[1, 0, 0], [0, lean, tilt], [0, -tilt, lean]])
    axes = (yaw @ pitch).astype(np.float32)
    half = solid.radius * _CUBE_HALF_EDGE
    directions = axes @ rays
    directions = np.where(np.abs(directions) < 1e-6, np.float32(1e-6), directions)
    middle = (axes @ np.array(solid.position, dtype=np.float32))[:, None] / directions
    reach = half / np.abs(directions)
    entry = middle - reach
    face = entry.argmax(axis=0)
    start = entry.max(axis=0)
    distance = np.where(start < (middle + reach).min(axis=0), start, np.inf).astype(np.float32)
    sign = -np.sign(np.take_along_axis(directions, face[None], axis=0))
    return distance, (axes.T[:, face] * sign).astype(np.float32)


def _cast_cone(rays: npt.NDArray[np.float32], solid: Solid) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """As for the ball; the cone stands on its base."""
    centre = np.array(solid.position, dtype=np.float32)
    apex = centre + np.array([0, solid.radius, 0], dtype=np.float32)
    height, base = 2 * solid.radius, _CONE_BASE * solid.radius
    slope = (base / height) ** 2
    weights = np.array([1, -slope, 1], dtype=np.float32)
    square = weights @ (rays * rays)
    along = (weights * apex) @ rays
    root = along * along - square * float(weights @ (apex * apex))
    side = (along - np.sqrt(np.maximum(root, 0))) / square
    fall = apex[1] - side * rays[1]
    distance = np.where((root >= 0) & (fall >= 0) & (fall <= height), side, np.inf).astype(np.float32)
    normal = rays * np.where(np.isfinite(distance), distance, 0) - apex[:, None]
    normal[1] *= -slope
    normal /= np.maximum(np.sqrt((normal * normal).sum(axis=0)), 1e-6)

    heights = np.where(np.abs(rays[1]) < 1e-6, np.float32(1e-6), rays[1])
    floor = (apex[1] - height) / heights
    beside = rays * floor - centre[:, None]
    on_base = (floor > 0) & (beside[0] ** 2 + beside[2] ** 2 <= base**2) & (floor < distance)
    distance = np.where(on_base, floor, distance).astype(np.float32)
    normal = np.where(on_base, np.array([[0.0], [-1.0], [0.0]]), normal)
    return distance, normal.astype(np.float32)


_CASTERS = {"ball": _cast_ball, "cube": _cast_cube, "cone": _cast_cone}
