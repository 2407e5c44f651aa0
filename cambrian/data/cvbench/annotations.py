"""Annotated pictures for CV-Bench: COCO's, ADE20K's and Omni3D's files, and scenes of the generated world."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cambrian.data.world.scenes import Scene

Point = tuple[float, float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Thing:
    """One annotated object."""

    category: str
    box: Box
    """Left, top, right, bottom in pixels."""
    corners: tuple[Point, ...] = ()
    """The eight corners of its box in space, in metres from the camera; none in two-dimensional data."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """One picture with everything that is annotated on it."""

    file: str
    """Below the folder of pictures."""
    source: str
    """ADE20K, COCO or Omni3D."""
    width: int
    height: int
    things: tuple[Thing, ...]


def read_coco(path: Path) -> list[Annotated]:
    """Pictures of an `instances_*.json`; pictures with a crowd in them are left out, since nobody counted it.

    Raises:
        ArtifactError: the file is missing or is not of COCO's form.
    """
    return _read(path, _from_coco)


def read_omni3d(path: Path) -> list[Annotated]:
    """Pictures of one of Omni3D's files; things without a valid box in space or behind the camera are left out.

    Raises:
        ArtifactError: the file is missing or is not of Omni3D's form.
    """
    return _read(path, _from_omni3d)


def read_ade(folder: Path) -> list[Annotated]:
    """Pictures of a folder of ADE20K's full release: a JSON file with polygons beside each picture. Parts are left out.

    Raises:
        ArtifactError: there is no such file, or one is not of ADE20K's form.
    """
    paths = sorted(folder.rglob("*.json"))
    if not paths:
        raise ArtifactError(f"{folder} has no JSON file: name a folder of ADE20K's full release")
    found = []
    for path in paths:
        inner = path.relative_to(folder)
        found += _read(path, partial(_from_ade, path=inner))
    return found


def from_scene(scene: Scene, *, file: str, side: int) -> Annotated:
    """A scene of the generated world; a solid's corners are those of the cube around it."""
    things = []
    for solid in scene.solids:
        left, top, right, bottom = (edge * side for edge in solid.bbox)
        x, y, z = solid.position
        corners = tuple(
            (x + i * solid.radius, y + j * solid.radius, z + k * solid.radius)
            for i, j, k in itertools.product((-1, 1), repeat=3)
        )
        things.append(Thing(f"{solid.colour} {solid.shape}", (left, top, right, bottom), corners))
    return Annotated(file, "generated", side, side, tuple(things))


def _read(path: Path, convert: Callable[[Any], list[Annotated]]) -> list[Annotated]:
    value = read_json(path)
    try:
        return convert(value)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ArtifactError(f"{path} is not of its data set's form ({error!r}): fetch it again") from error


def _from_coco(value: Any) -> list[Annotated]:
    names = {category["id"]: category["name"] for category in value["categories"]}
    things: dict[Any, list[Thing]] = {image["id"]: [] for image in value["images"]}
    crowded = {entry["image_id"] for entry in value["annotations"] if entry.get("iscrowd")}
    for entry in value["annotations"]:
        left, top, width, height = entry["bbox"]
        things[entry["image_id"]].append(Thing(names[entry["category_id"]], (left, top, left + width, top + height)))
    return [
        Annotated(image["file_name"], "COCO", image["width"], image["height"], tuple(things[image["id"]]))
        for image in value["images"]
        if image["id"] not in crowded
    ]


def _from_omni3d(value: Any) -> list[Annotated]:
    things: dict[Any, list[Thing]] = {image["id"]: [] for image in value["images"]}
    for entry in value["annotations"]:
        if not entry["valid3D"] or entry.get("behind_camera"):
            continue
        left, top, right, bottom = entry["bbox2D_proj"]
        corners = tuple(_point(corner) for corner in entry["bbox3D_cam"])
        if len(corners) != 8:
            raise ValueError(f"a box in space has {len(corners)} corners")
        things[entry["image_id"]].append(Thing(entry["category_name"], (left, top, right, bottom), corners))
    return [
        Annotated(image["file_path"], "Omni3D", image["width"], image["height"], tuple(things[image["id"]]))
        for image in value["images"]
    ]


def _from_ade(value: Any, path: Path) -> list[Annotated]:
    picture = value["annotation"]
    height, width = picture["imsize"][:2]
    things = []
    for entry in picture["object"]:
        if entry["parts"]["ispart"]:
            continue
        xs, ys = entry["polygon"]["x"], entry["polygon"]["y"]
        things.append(Thing(entry["name"].split(",")[0].strip(), (min(xs), min(ys), max(xs), max(ys))))
    return [Annotated((path.parent / picture["filename"]).as_posix(), "ADE20K", width, height, tuple(things))]


def _point(value: Sequence[float]) -> Point:
    x, y, z = value
    return float(x), float(y), float(z)
