"""Vision encoders: timm models in ordinary checkpoint folders, and the feature maps that are taken from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.artifacts import read_json, read_manifest, write_json
from cambrian.interfaces import ArtifactError, ImageSpec
from cambrian.models.encoder_libraries import Library, build_network
from cambrian.models.tensor_files import load_tensors, read_tensors, write_tensors
from cambrian.params import Params, parse_block

ENCODER_NAME = "encoder.json"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
_LIBRARY_KEY, _OWN_LIBRARY = "library", "timm"


class ImageConfig(Params):
    """The images that an encoder takes (see `cambrian.interfaces.ImageSpec`)."""

    side: int = Field(gt=0)
    mean: Annotated[tuple[float, float, float], Field(strict=False)]
    std: Annotated[tuple[float, float, float], Field(strict=False)]
    pad_colour: Annotated[tuple[int, int, int], Field(strict=False)]


class FeaturesConfig(Params):
    """Which of an encoder's intermediate maps make its features."""

    layers: Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
    """Blocks of a ViT or stages of a ConvNet, in timm's `forward_intermediates` numbering; -1 is the last."""
    norm: bool
    """Whether the encoder's own final norm is applied to them."""


class EncoderSpec(Params):
    """What stands in `encoder.json` beside timm's two files."""

    image: ImageConfig
    features: FeaturesConfig


class VisionEncoder(nn.Module):
    """A network that delivers one feature map per image and layer.

    `maps` leaves every layer on its own grid, so that what takes them resizes each once. Called as a module, it brings
    them to the finest grid among them (bilinear, without antialiasing) and joins them along channels, shallow to deep.
    """

    def __init__(self, backbone: nn.Module, spec: EncoderSpec) -> None:
        """Take the backbone and look once at what it makes of an empty image.

        Raises:
            ValueError: it cannot take images of the side that the spec says.
        """
        super().__init__()
        self.backbone = backbone.eval()
        self.layers = list(spec.features.layers)
        self.norm = spec.features.norm
        self.image_spec = ImageSpec(**spec.image.model_dump())
        side, parameter = spec.image.side, next(backbone.parameters())
        try:
            with torch.no_grad():
                pixels = torch.zeros(1, 3, side, side, device=parameter.device, dtype=parameter.dtype)
                examples = VisionEncoder.maps(self, pixels)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"the network cannot take images of {side} x {side} pixels ({error}): give it the side that it was "
                "made for, or build it for this one (timm's `img_size`)"
            ) from error
        self.map_shapes = [(example.shape[1], example.shape[2]) for example in examples]
        """Channels and features per side of every layer's square map, shallow to deep."""
        self.num_maps = len(examples)
        self.channels = sum(channels for channels, _ in self.map_shapes)
        self.grid = max(grid for _, grid in self.map_shapes)
        """Features per side of the finest map."""

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images channels grid grid"]:
        """Return the joined feature map of every image.

        Raises:
            ValueError: the images have another side than the encoder was built for.
        """
        maps = VisionEncoder.maps(self, pixels)
        if len(maps) == 1:
            return maps[0]
        finest = max(feature_map.shape[-1] for feature_map in maps)
        return torch.cat([resize_map(feature_map, finest) for feature_map in maps], dim=1)

    def maps(self, pixels: Float[Tensor, "images 3 height width"]) -> list[Tensor]:
        """Return every layer's feature maps, Float[images, channels_k, grid_k, grid_k], shallow to deep.

        Raises:
            ValueError: the images have another side than the encoder was built for.
        """
        side = self.image_spec.side
        if pixels.shape[-2:] != (side, side):
            found = " x ".join(str(size) for size in pixels.shape[-2:])
            raise ValueError(
                f"images of {found} pixels, but the encoder was built for {side} x {side}: bring them there, or build "
                "it with their side"
            )
        maps: list[Tensor] = self.backbone.forward_intermediates(  # type: ignore[operator]
            pixels, indices=self.layers, norm=self.norm, output_fmt="NCHW", intermediates_only=True, stop_early=True
        )
        return maps


def resize_map(
    feature_map: Float[Tensor, "images channels height width"], side: int
) -> Float[Tensor, "images channels side side"]:
    """Interpolate bilinearly to a square grid, in float32, corners not aligned, no antialiasing; equal grids pass.

    Source: release, `interpolate` of every encoder wrapper.
    """
    if feature_map.shape[-2:] == (side, side):
        return feature_map
    wide = feature_map.to(torch.promote_types(feature_map.dtype, torch.float32))
    return F.interpolate(wide, size=(side, side), mode="bilinear", align_corners=False).to(feature_map.dtype)


def write_encoder(
    folder: Path, module: nn.Module, *, architecture: str, model_args: dict[str, Any], spec: EncoderSpec
) -> None:
    """Write timm's local folder (`timm.create_model("local-dir:FOLDER", pretrained=True)` reads it) and the spec.

    `module` is what `timm.create_model(architecture, **model_args)` made; `model_args` must hold only JSON values.
    """
    tensors = module.state_dict()
    write_encoder_tensors(folder, tensors, library="timm", architecture=architecture, model_args=model_args, spec=spec)


def write_encoder_tensors(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    library: Library,
    architecture: str,
    model_args: dict[str, Any],
    spec: EncoderSpec,
) -> None:
    """Write the folder of an encoder of any library from the tensors of `build_network(...).state_dict()`."""
    image = spec.image
    pretrained = {
        "architecture": architecture,
        "input_size": [3, image.side, image.side],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": list(image.mean),
        "std": list(image.std),
        "num_classes": model_args.get("num_classes", 0),
    }
    config = {"architecture": architecture, "model_args": model_args, "pretrained_cfg": pretrained}
    if library != _OWN_LIBRARY:  # timm's own layout does not have the field
        config[_LIBRARY_KEY] = library
    write_json(folder / CONFIG_NAME, config)
    write_json(folder / ENCODER_NAME, spec.model_dump(mode="json"))
    write_tensors(folder / WEIGHTS_NAME, tensors)


def read_encoder(folder: Path) -> VisionEncoder:
    """Read a finished encoder folder.

    Raises:
        ArtifactError: the folder is not finished, its network cannot be built or does not take images of the side that
            its spec says, or a tensor is missing, left over or of another shape.
    """
    read_manifest(folder)
    config = read_json(folder / CONFIG_NAME)
    try:
        spec = parse_block(EncoderSpec, read_json(folder / ENCODER_NAME), where=str(folder / ENCODER_NAME))
        backbone = build_network(config.get(_LIBRARY_KEY, _OWN_LIBRARY), config["architecture"], config["model_args"])
    except (ValueError, KeyError) as error:
        raise ArtifactError(f"{folder} does not describe an encoder ({error}): make it again") from error
    load_tensors(dict(backbone.state_dict()), read_tensors(folder / WEIGHTS_NAME), where=folder / WEIGHTS_NAME)
    try:
        return VisionEncoder(backbone, spec)
    except ValueError as error:
        raise ArtifactError(f"{folder}: {error}") from error
