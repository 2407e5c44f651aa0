"""Language supervision: an image's embedding shall meet its own caption's."""

import math
from collections.abc import Iterator, Sequence

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.backbones.objectives.config import LanguageContrastiveConfig
from cambrian.backbones.objectives.objective import Objective, Pictures, feature_map, feature_shape
from cambrian.backbones.optimization import OptimizationConfig, iter_shuffled

_PAD_ID = 0
_INITIAL_SCALE = math.log(10)


class TextEncoder(nn.Module):
    """A small transformer over a caption's words, averaged to one embedding."""

    def __init__(self, num_words: int, max_num_words: int, dim: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, dim, padding_idx=_PAD_ID)
        self.positions = nn.Embedding(max_num_words, dim)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim,
                num_heads,
                dim_feedforward=2 * dim,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, ids: Int[Tensor, "texts words"]) -> Float[Tensor, "texts dim"]:
        """Embed captions, padded with 0."""
        is_padding = ids == _PAD_ID
        hidden = self.words(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            hidden = block(hidden, src_key_padding_mask=is_padding)
        is_word = (~is_padding).unsqueeze(-1).to(hidden.dtype)
        mean: Tensor = self.norm((hidden * is_word).sum(1) / is_word.sum(1).clamp(min=1))
        return mean


class LanguageContrastive(Objective):
    """CLIP's loss (softmax over the batch, both ways) or SigLIP's (a sigmoid per pair), with a learned scale.

    Source: Radford et al. 2021, figure 3; Zhai et al. 2023, algorithm 1.
    """

    caption_ids: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        pictures: Pictures,
        generator: torch.Generator,
        *,
        config: LanguageContrastiveConfig,
        captions: Sequence[str],
        kinds: Int[Tensor, " images"],
    ) -> None:
        super().__init__(encoder, pictures, generator)
        dim, _ = feature_shape(encoder, pictures)
        ids = caption_ids(captions)
        self.register_buffer("caption_ids", ids, persistent=False)
        self._kinds = kinds
        self._loss = config.loss
        self._one_kind_share = config.one_kind_share
        self.text = TextEncoder(
            int(ids.max()) + 1, ids.shape[1], config.embedding_dim, config.text_num_layers, config.text_num_heads
        )
        self.image_head = nn.Linear(dim, config.embedding_dim, bias=False)
        self.scale = nn.Parameter(torch.tensor(_INITIAL_SCALE))
        self.bias = nn.Parameter(torch.tensor(-_INITIAL_SCALE if config.loss == "sigmoid" else 0.0))

    def forward(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, ""]:  # noqa: D102
        features = feature_map(self.encoder, self.pictures.take(indices))
        image = F.normalize(self.image_head(reduce(features, "b c h w -> b c", "mean")), dim=-1)
        ids = self.caption_ids[indices]
        text = F.normalize(self.text(ids[:, : int((ids != _PAD_ID).sum(1).max())]), dim=-1)
        logits = self.scale.exp() * image @ text.T
        is_same = (ids[:, None] == ids[None]).all(-1)  # two images with one caption are no negatives
        if self._loss == "sigmoid":
            return F.binary_cross_entropy_with_logits(logits + self.bias, is_same.float(), reduction="sum") / len(ids)
        targets = is_same / is_same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2

    def heads(self) -> list[nn.Module]:  # noqa: D102
        return [self.image_head, self.text.words, self.text.positions]

    def iter_batches(self, config: OptimizationConfig) -> Iterator[Int[Tensor, " batch"]]:
        """Yield batches, a share of them from one kind of image, which is drawn by how many images there are of it."""
        mixed = iter_shuffled(torch.arange(len(self.pictures)), config.batch_size, self.generator)
        counts = torch.bincount(self._kinds)
        large = [kind for kind, count in enumerate(counts.tolist()) if count >= config.batch_size]
        if not large:
            raise ValueError(f"no kind of image fills a batch of {config.batch_size} (found {counts.tolist()})")
        pure = {
            kind: iter_shuffled((self._kinds == kind).nonzero().flatten(), config.batch_size, self.generator)
            for kind in large
        }
        while True:
            if torch.rand((), generator=self.generator) < self._one_kind_share:
                choice = torch.multinomial(counts[large].float(), 1, generator=self.generator)
                yield next(pure[large[int(choice)]])
            else:
                yield next(mixed)


def caption_ids(captions: Sequence[str]) -> Int[Tensor, "captions words"]:
    """Number the words of all captions from 1, in alphabetic order, and pad with 0."""
    texts = [caption.split() for caption in captions]
    number = {word: index for index, word in enumerate(sorted({word for text in texts for word in text}), 1)}
    ids = torch.zeros(len(texts), max(len(text) for text in texts), dtype=torch.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor([number[word] for word in text])
    return ids
