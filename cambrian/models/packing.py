"""Rows of real tokens only: every sample's tokens one after the other, attention confined to each sample."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

ATTENTION_NAME = "cambrian_packed"
"""The name under which transformers knows `packed_attention`."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the tokens of one packed row stand in the padded batch that they come from."""

    places: Int[Tensor, " tokens"]
    """For each token its place in the samples closed up to the left, counted through `num_samples` rows of `length`."""
    starts: Bool[Tensor, " tokens"]
    """True at the first token of each sample."""
    num_samples: int
    length: int
    """Tokens of the longest sample."""

    def unpack(self, packed: Float[Tensor, "tokens ..."]) -> Float[Tensor, "samples length ..."]:
        """Return the samples padded on the right with zeros."""
        flat = packed.new_zeros(self.num_samples * self.length, *packed.shape[1:])
        return flat.index_copy(0, self.places, packed).view(self.num_samples, self.length, *packed.shape[1:])

    def pack(self, padded: Float[Tensor, "samples length ..."]) -> Float[Tensor, "tokens ..."]:
        """Return the real tokens of samples that are padded on the right."""
        return padded.flatten(0, 1).index_select(0, self.places)


def find_segments(mask: Bool[Tensor, "samples length"]) -> Segments:
    """Return where the real tokens of a padded batch lie; padding may be anywhere, inside a sample too."""
    position = mask.cumsum(dim=1) - 1
    length = int(position[:, -1].max()) + 1
    offset = torch.arange(len(mask), device=mask.device)[:, None] * length
    return Segments(
        places=(offset + position)[mask], starts=(position == 0)[mask], num_samples=len(mask), length=length
    )


def use_packed_attention(llm: nn.Module) -> None:
    """Let a model of transformers take packed rows: call it with a batch of one row and `segments=`.

    Without that argument it computes as before, by torch's scaled dot-product attention.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def packed_attention(
        module: nn.Module,
        query: Float[Tensor, "batch heads length head_dim"],
        key: Float[Tensor, "batch groups keys head_dim"],
        value: Float[Tensor, "batch groups keys head_dim"],
        attention_mask: Tensor | None,
        segments: Segments | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        if segments is None:
            result: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
            return result
        window = kwargs.pop("sliding_window", None)
        if window is not None and segments.length > window:
            raise ValueError(
                f"a sample of {segments.length} tokens is longer than the LLM's sliding window of {window}, which "
                "packed rows do not know: cut samples to the window by max_length"
            )
        unpacked = [segments.unpack(part[0].transpose(0, 1)).transpose(1, 2) for part in (query, key, value)]
        attended, _ = sdpa_attention_forward(module, *unpacked, None, **kwargs)
        return segments.pack(attended)[None], None

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, sdpa_mask)
    llm.get_submodule("model").config._attn_implementation = ATTENTION_NAME  # type: ignore[union-attr]


NO_MASK_NEEDED = torch.ones(1, 1, 1, 1, dtype=torch.bool)
"""Passed with `segments`: transformers hands a mask of four dimensions on as it is, instead of making one."""
