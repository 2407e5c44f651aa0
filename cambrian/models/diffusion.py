"""Stable Diffusion's U-Net and the encoder of its VAE as a vision encoder, under the names of diffusers' checkpoints.

diffusers is no dependency: only what the features need is here, and the U-Net's last layer, so that its checkpoint
loads key for key. The VAE's decoder and the text encoder are not: the states of the empty prompt, the only text there
ever is, are a buffer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

if TYPE_CHECKING:
    from collections.abc import Sequence

LATENT_SCALE = 0.18215
"""Of a latent before the U-Net sees it. Source: Stable Diffusion 2.1, the VAE's `scaling_factor`."""
NUM_PROMPT_TOKENS = 77
NUM_TIMESTEPS, FIRST_BETA, LAST_BETA = 1000, 0.00085, 0.012
"""Of the noise schedule, linear in the square root of beta. Source: Stable Diffusion 2.1, its scheduler."""


def build_diffusion(
    *,
    block_channels: Sequence[int],
    blocks_per_level: int,
    vae_channels: Sequence[int],
    latent_channels: int,
    prompt_dim: int,
    head_dim: int,
    num_groups: int,
    timestep: int,
) -> DiffusionBackbone:
    """Build both networks with fresh weights on torch's current device; channels run from the finest level on."""
    unet = UNet(
        block_channels=block_channels,
        blocks_per_level=blocks_per_level,
        latent_channels=latent_channels,
        prompt_dim=prompt_dim,
        head_dim=head_dim,
        num_groups=num_groups,
    )
    vae = LatentEncoder(
        channels=vae_channels, blocks_per_level=blocks_per_level, latent_channels=latent_channels, num_groups=num_groups
    )
    return DiffusionBackbone(unet, vae, prompt_dim=prompt_dim, timestep=timestep)


class DiffusionBackbone(nn.Module):
    """The maps after the U-Net's up blocks, of an image's latent at one noise level, with the empty prompt.

    The noise is an argument of nothing: it is the same for every image and every call. The release draws another one
    each time, so its features of an image differ from call to call.

    Source: release, `diffusion_encoder.py`; Tang et al., Emergent Correspondence from Image Diffusion.
    """

    prompt: Tensor

    def __init__(self, unet: UNet, vae: LatentEncoder, *, prompt_dim: int, timestep: int) -> None:
        super().__init__()
        self.unet = unet
        self.vae = vae
        self.timestep = timestep
        betas = torch.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, NUM_TIMESTEPS, dtype=torch.float64, device="cpu") ** 2
        self.signal_share = float(torch.cumprod(1 - betas, dim=0)[timestep])
        self.register_buffer("prompt", torch.zeros(1, NUM_PROMPT_TOKENS, prompt_dim))

    def forward_intermediates(self, pixels: Tensor, *, indices: Sequence[int], norm: bool, **_: object) -> list[Tensor]:
        """Return the maps after these up blocks, deep to fine; there is no norm to apply to them."""
        if norm:
            raise ValueError("a U-Net has no norm after its up blocks: set features.norm to false")
        latents = LATENT_SCALE * self.vae(pixels)
        noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(0), device="cpu")
        noisy = self.signal_share**0.5 * latents + (1 - self.signal_share) ** 0.5 * noise.to(latents)
        maps = self.unet(noisy, self.timestep, self.prompt.expand(len(pixels), -1, -1))
        return [maps[index] for index in indices]


class UNet(nn.Module):
    """Attention on all levels but the deepest, three residual blocks on the way up for two on the way down."""

    def __init__(
        self,
        *,
        block_channels: Sequence[int],
        blocks_per_level: int,
        latent_channels: int,
        prompt_dim: int,
        head_dim: int,
        num_groups: int,
    ) -> None:
        super().__init__()
        widths, first, deepest = list(block_channels), block_channels[0], block_channels[-1]
        time_dim = 4 * first
        shape: dict[str, Any] = {
            "time_dim": time_dim,
            "prompt_dim": prompt_dim,
            "head_dim": head_dim,
            "num_groups": num_groups,
        }
        self.time_channels = first
        self.conv_in = nn.Conv2d(latent_channels, first, 3, padding=1)
        self.time_embedding = nn.ModuleDict(
            {"linear_1": nn.Linear(first, time_dim), "linear_2": nn.Linear(time_dim, time_dim)}
        )
        self.down_blocks = nn.ModuleList()
        skips = [first]
        for level, width in enumerate(widths):
            is_last = level == len(widths) - 1
            inputs = [widths[max(level - 1, 0)]] + [width] * (blocks_per_level - 1)
            resample: Literal["up", "down"] | None = None if is_last else "down"
            num_attentions = 0 if is_last else blocks_per_level
            self.down_blocks.append(Level(inputs, width, num_attentions=num_attentions, resample=resample, **shape))
            skips += [width] * (blocks_per_level if is_last else blocks_per_level + 1)
        self.mid_block = Level([deepest, deepest], deepest, num_attentions=1, resample=None, **shape)
        self.up_blocks = nn.ModuleList()
        previous = deepest
        for level, width in enumerate(reversed(widths)):
            inputs = [(previous if block == 0 else width) + skips.pop() for block in range(blocks_per_level + 1)]
            resample = "up" if level < len(widths) - 1 else None
            num_attentions = 0 if level == 0 else blocks_per_level + 1
            self.up_blocks.append(Level(inputs, width, num_attentions=num_attentions, resample=resample, **shape))
            previous = width
        self.conv_norm_out = nn.GroupNorm(num_groups, first)
        self.conv_out = nn.Conv2d(first, latent_channels, 3, padding=1)

    def forward(self, latents: Tensor, timestep: int, prompt: Tensor) -> list[Tensor]:
        """Return the map after every up block, deep to fine."""
        half = self.time_channels // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, device=latents.device) / half)
        angles = timestep * rates
        sinusoid = torch.cat([angles.cos(), angles.sin()])[None].to(latents)
        time = self.time_embedding["linear_2"](F.silu(self.time_embedding["linear_1"](sinusoid)))
        state = self.conv_in(latents)
        skips = [state]
        for level in self.down_blocks:
            state, outputs = level(state, time, prompt, skips=None)
            skips += outputs
        state, _ = self.mid_block(state, time, prompt, skips=None)
        maps = []
        for level in self.up_blocks:
            state, _ = level(state, time, prompt, skips=skips)
            maps.append(state)
        return maps


class Level(nn.Module):
    """Residual blocks of one level, the attention blocks behind the first of them, and a change of resolution."""

    def __init__(
        self,
        inputs: Sequence[int],
        width: int,
        *,
        num_attentions: int,
        resample: Literal["up", "down"] | None,
        time_dim: int,
        prompt_dim: int,
        head_dim: int,
        num_groups: int,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResidualBlock(one, width, time_dim=time_dim, num_groups=num_groups, eps=1e-5) for one in inputs
        )
        self.attentions = nn.ModuleList(
            SpatialTransformer(width, prompt_dim=prompt_dim, head_dim=head_dim, num_groups=num_groups)
            for _ in range(num_attentions)
        )
        self.downsamplers = nn.ModuleList([Resample(width, kind="down")] if resample == "down" else [])
        self.upsamplers = nn.ModuleList([Resample(width, kind="up")] if resample == "up" else [])

    def forward(
        self, state: Tensor, time: Tensor, prompt: Tensor, *, skips: list[Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the state, and every state on the way; on the way up each block takes the last of `skips` away."""
        outputs = []
        for index, block in enumerate(self.resnets):
            state = block(state if skips is None else torch.cat([state, skips.pop()], dim=1), time)
            if len(self.attentions) > index:
                state = self.attentions[index](state, prompt)
            outputs.append(state)
        for sampler in (*self.downsamplers, *self.upsamplers):
            state = sampler(state)
            outputs.append(state)
        return state, outputs


class Resample(nn.Module):
    """Halve or double both sides; `uneven` pads only below and on the right, as the VAE does."""

    def __init__(self, width: int, *, kind: Literal["up", "down", "uneven"]) -> None:
        super().__init__()
        self.kind = kind
        padding = 0 if kind == "uneven" else 1
        self.conv = nn.Conv2d(width, width, 3, stride=1 if kind == "up" else 2, padding=padding)

    def forward(self, state: Tensor) -> Tensor:
        """Return the map at the other resolution."""
        if self.kind == "up":
            state = F.interpolate(state, scale_factor=2.0, mode="nearest")
        elif self.kind == "uneven":
            state = F.pad(state, (0, 1, 0, 1))
        return self.conv(state)  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the time, where there is one, is added between them."""

    def __init__(self, input_dim: int, width: int, *, time_dim: int | None, num_groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, input_dim, eps=eps)
        self.conv1 = nn.Conv2d(input_dim, width, 3, padding=1)
        self.time_emb_proj = None if time_dim is None else nn.Linear(time_dim, width)
        self.norm2 = nn.GroupNorm(num_groups, width, eps=eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = None if input_dim == width else nn.Conv2d(input_dim, width, 1)

    def forward(self, state: Tensor, time: Tensor | None = None) -> Tensor:
        """Return the map with this block's changes."""
        change: Tensor = self.conv1(F.silu(self.norm1(state)))
        if self.time_emb_proj is not None and time is not None:
            change = change + self.time_emb_proj(F.silu(time))[:, :, None, None]
        change = self.conv2(F.silu(self.norm2(change)))
        return change + (state if self.conv_shortcut is None else self.conv_shortcut(state))


class SpatialTransformer(nn.Module):
    """One transformer block over the places of a map, which also attend to the prompt."""

    def __init__(self, width: int, *, prompt_dim: int, head_dim: int, num_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, prompt_dim=prompt_dim, head_dim=head_dim)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, state: Tensor, prompt: Tensor) -> Tensor:
        """Return the map with this block's changes."""
        rows = state.shape[-2]
        tokens: Tensor = self.proj_in(rearrange(self.norm(state), "image dim row column -> image (row column) dim"))
        tokens = self.proj_out(self.transformer_blocks[0](tokens, prompt))
        return state + rearrange(tokens, "image (row column) dim -> image dim row column", row=rows)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the prompt, and a gated feed-forward network, each behind its norm."""

    def __init__(self, width: int, *, prompt_dim: int, head_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, source_dim=width, head_dim=head_dim, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, source_dim=prompt_dim, head_dim=head_dim, bias=False)
        self.norm3 = nn.LayerNorm(width)
        self.ff = nn.ModuleDict(
            {"net": nn.ModuleList([_Gated(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])}
        )

    def forward(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        """Return the tokens with this block's changes."""
        normed = self.norm1(tokens)
        tokens = tokens + self.attn1(normed, normed)
        tokens = tokens + self.attn2(self.norm2(tokens), prompt)
        change: Tensor = self.norm3(tokens)
        for layer in cast("nn.ModuleList", self.ff["net"]):
            change = layer(change)
        return tokens + change


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, width: int, *, source_dim: int, head_dim: int, bias: bool) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(source_dim, width, bias=bias)
        self.to_v = nn.Linear(source_dim, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, tokens: Tensor, source: Tensor) -> Tensor:
        """Return what every token takes from the source."""
        split = "image token (head dim) -> image head token dim"
        queries, keys, values = (
            rearrange(layer(of), split, dim=self.head_dim)
            for layer, of in ((self.to_q, tokens), (self.to_k, source), (self.to_v, source))
        )
        taken = F.scaled_dot_product_attention(queries, keys, values)
        return self.to_out[0](rearrange(taken, "image head token dim -> image token (head dim)"))  # type: ignore[no-any-return]


class LatentEncoder(nn.Module):
    """The encoder of the VAE: an image's latent, an eighth of its side, by the mean of its distribution."""

    def __init__(
        self, *, channels: Sequence[int], blocks_per_level: int, latent_channels: int, num_groups: int
    ) -> None:
        super().__init__()
        deepest = channels[-1]
        parts = {
            "conv_in": nn.Conv2d(3, channels[0], 3, padding=1),
            "down_blocks": nn.ModuleList(
                _LatentLevel(
                    [channels[max(level - 1, 0)]] + [width] * (blocks_per_level - 1),
                    width,
                    num_attentions=0,
                    is_halved=level < len(channels) - 1,
                    num_groups=num_groups,
                )
                for level, width in enumerate(channels)
            ),
            "mid_block": _LatentLevel([deepest] * 2, deepest, num_attentions=1, is_halved=False, num_groups=num_groups),
            "conv_norm_out": nn.GroupNorm(num_groups, deepest, eps=1e-6),
            "conv_out": nn.Conv2d(deepest, 2 * latent_channels, 3, padding=1),
        }
        self.encoder = nn.ModuleDict(parts)
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return Float[images, latent_channels, side / 8, side / 8]."""
        state: Tensor = self.encoder["conv_in"](pixels)
        for level in (*cast("nn.ModuleList", self.encoder["down_blocks"]), self.encoder["mid_block"]):
            state = level(state)
        moments: Tensor = self.quant_conv(self.encoder["conv_out"](F.silu(self.encoder["conv_norm_out"](state))))
        return moments.chunk(2, dim=1)[0]


class _LatentLevel(nn.Module):
    """Residual blocks of the VAE, self-attention behind the first of them or nowhere, and half the resolution."""

    def __init__(
        self, inputs: Sequence[int], width: int, *, num_attentions: int, is_halved: bool, num_groups: int
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResidualBlock(one, width, time_dim=None, num_groups=num_groups, eps=1e-6) for one in inputs
        )
        self.attentions = nn.ModuleList(_MapAttention(width, num_groups=num_groups) for _ in range(num_attentions))
        self.downsamplers = nn.ModuleList([Resample(width, kind="uneven")] if is_halved else [])

    def forward(self, state: Tensor) -> Tensor:
        for index, block in enumerate(self.resnets):
            state = block(state)
            if len(self.attentions) > index:
                state = self.attentions[index](state)
        for sampler in self.downsamplers:
            state = sampler(state)
        return state


class _MapAttention(Attention):
    """Self-attention over the places of a map, behind a norm and beside a shortcut."""

    def __init__(self, width: int, *, num_groups: int) -> None:
        super().__init__(width, source_dim=width, head_dim=width, bias=True)
        self.group_norm = nn.GroupNorm(num_groups, width, eps=1e-6)

    def forward(self, state: Tensor) -> Tensor:  # type: ignore[override]
        tokens = rearrange(self.group_norm(state), "image dim row column -> image (row column) dim")
        taken = super().forward(tokens, tokens)
        return state + rearrange(taken, "image (row column) dim -> image dim row column", row=state.shape[-2])


class _Gated(nn.Module):
    """A linear layer, half of whose outputs gate the other half."""

    def __init__(self, input_dim: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(input_dim, 2 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        value, gate = self.proj(tokens).chunk(2, dim=-1)
        return value * F.gelu(gate)  # type: ignore[no-any-return]
