"""The networks of vision encoders by the library that has them, and the hidden states of transformers as maps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from einops import rearrange
from torch import Tensor, nn

from cambrian.models.diffusion import build_diffusion
from cambrian.models.torchvision_shim import declare_missing_operators
from cambrian.params import look_up

Library = Literal["timm", "transformers", "diffusers"]


class HiddenStates(nn.Module):
    """A ViT of transformers whose hidden states are taken as timm's intermediates are."""

    def __init__(self, model: nn.Module, *, num_prefix_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.num_prefix_tokens = num_prefix_tokens

    def forward_intermediates(self, pixels: Tensor, *, indices: Sequence[int], norm: bool, **_: object) -> list[Tensor]:
        """Return the outputs of these blocks as maps, without the prefix tokens; no norm can be applied to them."""
        if norm:
            raise ValueError("hidden states of transformers are taken before any norm: set features.norm to false")
        states = self.model(pixels, output_hidden_states=True).hidden_states[1:]  # the first is the embedding
        patches = [states[index][:, self.num_prefix_tokens :] for index in indices]
        return [rearrange(one, "b (h w) c -> b c h w", h=round(one.shape[1] ** 0.5)) for one in patches]


def build_network(library: str, architecture: str, model_args: Mapping[str, Any]) -> nn.Module:
    """Build an encoder's network with fresh weights, on torch's current device.

    Raises:
        ValueError: the library or the architecture is unknown, or an argument does not fit it.
    """
    build = look_up(_BUILDERS, library, where="library")
    declare_missing_operators()  # timm needs torchvision, and so do some modules of transformers
    try:
        network: nn.Module = build(architecture, dict(model_args))
    except (RuntimeError, TypeError, AssertionError, AttributeError) as error:
        raise ValueError(f"{library} cannot make {architecture!r} with {dict(model_args)}: {error}") from error
    return network


def _build_timm(architecture: str, model_args: dict[str, Any]) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(architecture, pretrained=False, **model_args)
    return network


def _build_transformers(architecture: str, model_args: dict[str, Any]) -> nn.Module:
    import transformers

    num_prefix_tokens = model_args.pop("num_prefix_tokens")
    build = getattr(transformers, architecture)
    model = build(build.config_class(**model_args), add_pooling_layer=False)
    return HiddenStates(model, num_prefix_tokens=num_prefix_tokens)


def _build_diffusers(architecture: str, model_args: dict[str, Any]) -> nn.Module:
    """Build our own U-Net and VAE encoder: diffusers is no dependency, only the names are its."""
    return build_diffusion(**model_args)


_BUILDERS: dict[str, Callable[[str, dict[str, Any]], nn.Module]] = {
    "timm": _build_timm,
    "transformers": _build_transformers,
    "diffusers": _build_diffusers,
}
