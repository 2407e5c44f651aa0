"""Self-supervision by hiding: pixels of hidden patches (MAE), or a slow copy's features of hidden blocks (I-JEPA).

Both feed only the visible patches to the encoder, which so must be a timm ViT without class tokens.
"""

import copy

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.backbones.objectives.config import JointEmbeddingConfig, MaskedAutoencoderConfig
from cambrian.backbones.objectives.objective import Objective, Pictures, feature_map, feature_shape


class MaskedAutoencoder(Objective):
    """Mean squared error of the pixels of hidden patches.

    Source: He et al. 2022; pixels are not normalised per patch, because a flat patch has nothing but its colour.
    """

    def __init__(
        self,
        encoder: nn.Module,
        pictures: Pictures,
        generator: torch.Generator,
        *,
        config: MaskedAutoencoderConfig,
    ) -> None:
        super().__init__(encoder, pictures, generator)
        dim, grid = feature_shape(encoder, pictures)
        self._grid = grid
        self._num_visible = round(grid**2 * (1 - config.masked_share))
        if not 0 < self._num_visible < grid**2:
            raise ValueError(f"masked_share {config.masked_share} leaves {self._num_visible} of {grid**2} patches")
        self.decoder = FillIn(dim, config.decoder_dim, grid**2, config.decoder_num_layers, config.decoder_num_heads)
        self.head = nn.Linear(config.decoder_dim, 3 * (pictures.side // grid) ** 2)

    def forward(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, ""]:  # noqa: D102
        pixels = self.pictures.take(indices)
        order = torch.rand(len(pixels), self._grid**2, generator=self.generator).argsort(1).to(pixels.device)
        visible, hidden = order[:, : self._num_visible], order[:, self._num_visible :]
        found = self.head(self.decoder(encode_visible(self.encoder, pixels, visible), visible, hidden))
        patches = rearrange(pixels, "b c (h p) (w q) -> b (h w) (c p q)", h=self._grid, w=self._grid)
        return F.mse_loss(found, take_tokens(patches, hidden))

    def heads(self) -> list[nn.Module]:  # noqa: D102
        return [self.head]


class JointEmbedding(Objective):
    """Smooth L1 between the predicted and the slow copy's normalised features of hidden blocks.

    One set of blocks serves a whole batch, so that its samples have the same number of visible patches.

    Source: Assran et al. 2023.
    """

    def __init__(
        self, encoder: nn.Module, pictures: Pictures, generator: torch.Generator, *, config: JointEmbeddingConfig
    ) -> None:
        super().__init__(encoder, pictures, generator)
        dim, grid = feature_shape(encoder, pictures)
        self._grid = grid
        self._config = config
        self.slow = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor = FillIn(
            dim, config.predictor_dim, grid**2, config.predictor_num_layers, config.predictor_num_heads
        )
        self.head = nn.Linear(config.predictor_dim, dim)

    def forward(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, ""]:  # noqa: D102
        pixels = self.pictures.take(indices)
        is_hidden = draw_blocks(
            self._grid,
            self._config.num_blocks,
            self._config.min_block_side,
            self._config.max_block_side,
            self.generator,
        ).to(pixels.device)
        hidden = is_hidden.nonzero().T.expand(len(pixels), -1)
        visible = (~is_hidden).nonzero().T.expand(len(pixels), -1)
        with torch.no_grad():
            targets = rearrange(feature_map(self.slow, pixels), "b c h w -> b (h w) c")
            targets = F.layer_norm(targets, targets.shape[-1:])
        found = self.head(self.predictor(encode_visible(self.encoder, pixels, visible), visible, hidden))
        return F.smooth_l1_loss(found, take_tokens(targets, hidden))

    def heads(self) -> list[nn.Module]:  # noqa: D102
        return [self.head]

    def after_step(self) -> None:
        """Move the slow copy towards the encoder."""
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.slow.parameters()), list(self.encoder.parameters()), 1 - self._config.momentum
            )


class FillIn(nn.Module):
    """Transformer blocks that see visible tokens and say something for the hidden places."""

    def __init__(self, encoder_dim: int, dim: int, num_places: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.embed = nn.Linear(encoder_dim, dim)
        self.hidden = nn.Parameter(torch.randn(dim) * 0.02)
        self.positions = nn.Parameter(torch.randn(num_places, dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(dim, num_heads, mlp_ratio=2.0) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        tokens: Float[Tensor, "batch visible encoder_dim"],
        visible: Int[Tensor, "batch visible"],
        hidden: Int[Tensor, "batch hidden"],
    ) -> Float[Tensor, "batch hidden dim"]:
        """Return one vector per hidden place."""
        known = self.embed(tokens) + self.positions[visible]
        asked = self.hidden + self.positions[hidden]
        mixed: Tensor = self.norm(self.blocks(torch.cat([known, asked], dim=1))[:, tokens.shape[1] :])
        return mixed


def encode_visible(
    encoder: nn.Module, pixels: Float[Tensor, "batch 3 side side"], visible: Int[Tensor, "batch visible"]
) -> Float[Tensor, "batch visible dim"]:
    """Run a timm ViT without class tokens over some of its patches only."""
    parts: dict[str, nn.Module] = dict(encoder.named_children())
    tokens = parts["patch_embed"](pixels) + encoder.get_parameter("pos_embed")
    tokens = parts["norm_pre"](take_tokens(tokens, visible))
    encoded: Tensor = parts["norm"](parts["blocks"](tokens))
    return encoded


def take_tokens(
    tokens: Float[Tensor, "batch places dim"], places: Int[Tensor, "batch taken"]
) -> Float[Tensor, "batch taken dim"]:
    """Take each sample's own places."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def draw_blocks(grid: int, number: int, min_side: int, max_side: int, generator: torch.Generator) -> Tensor:
    """Draw rectangles on a grid and say for each place whether one covers it; at least one place stays free.

    Raises:
        ValueError: a block can be as large as the grid, so that nothing might stay visible.
    """
    if not min_side <= max_side < grid:
        raise ValueError(
            f"blocks of {min_side} to {max_side} patches a side on a grid of {grid}: nothing stays visible"
        )
    while True:
        is_hidden = torch.zeros(grid, grid, dtype=torch.bool)
        for _ in range(number):
            height, width = torch.randint(min_side, max_side + 1, (2,), generator=generator).tolist()
            top = int(torch.randint(grid - height + 1, (), generator=generator))
            left = int(torch.randint(grid - width + 1, (), generator=generator))
            is_hidden[top : top + height, left : left + width] = True
        if not is_hidden.all():
            return is_hidden.flatten()
