"""Generation for batches of prompts, with a key-value cache: greedy here, everything else by transformers."""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cambrian.interfaces import IMAGE_TOKEN_ID, Batch
from cambrian.models.llm_aggregators import Vision
from cambrian.models.multimodal import MultimodalModel, Prompt, positions_of, vision_argument


@torch.inference_mode()
def generate(model: MultimodalModel, batch: Batch, *, max_new_tokens: int, end_id: int) -> list[list[int]]:
    """Return each prompt's continuation, without the end token; a batch gives what its prompts give one by one.

    Prompts may be padded on either side. Aggregators inside the LLM act on the prompt only: its cached keys and values
    hold their effect.
    """
    from transformers.cache_utils import DynamicCache

    prompt = model.embed(batch)
    if _is_windowed(model, prompt.mask.shape[1] + max_new_tokens):
        prompt = _close_gaps(prompt, length=prompt.mask.shape[1])  # a window counts places, masked ones too
    mask = prompt.mask
    cache = DynamicCache(config=model.llm.config)
    hidden = model.llm.model(
        inputs_embeds=prompt.embeddings,
        attention_mask=mask,
        position_ids=positions_of(mask),
        past_key_values=cache,
        use_cache=True,
        **vision_argument(prompt.vision),
    ).last_hidden_state
    last = mask.shape[1] - 1 - mask.flip(1).to(torch.int8).argmax(dim=1)
    next_ids = _most_likely(model, hidden[torch.arange(len(mask), device=mask.device), last])
    positions = positions_of(mask)[:, -1:]
    new_ids = [next_ids]
    is_done = next_ids == end_id
    while len(new_ids) < max_new_tokens and not is_done.all():
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions + 1
        hidden = model.llm.model(
            input_ids=next_ids[:, None],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        next_ids = _most_likely(model, hidden[:, -1])
        new_ids.append(next_ids)
        is_done |= next_ids == end_id
    return [_until(row, end_id) for row in torch.stack(new_ids, dim=1).tolist()]


@torch.inference_mode()
def generate_with_options(model: MultimodalModel, batch: Batch, **options: Any) -> Int[Tensor, "sequences new_tokens"]:
    """Return what transformers' own `generate` continues the prompts with; `options` are its: sampling, beams, limits.

    All of the prompt but its last token is computed here, where the images are known, and handed over as a cache. A
    row is filled up with `pad_token_id`. Positions of images and of padding are token 0 to penalties on repetition.

    Raises:
        ValueError: an option that `generate` does not know, or a prompt that ends with an image, whose last place no
            token id can stand for.
    """
    from transformers.cache_utils import DynamicCache

    prompt = model.embed(batch)
    order = _closing_order(prompt.mask)
    ids, mask = batch.input_ids.gather(1, order), prompt.mask.gather(1, order)
    if (ids[:, -1] == IMAGE_TOKEN_ID).any():
        row = int((ids[:, -1] == IMAGE_TOKEN_ID).nonzero()[0])
        raise ValueError(f"prompt {row} of the batch ends with an image, expected text after it: add the question")
    known = _close_gaps(prompt, length=ids.shape[1] - 1)
    cache = DynamicCache(config=model.llm.config)
    if known.mask.numel():
        model.llm.model(
            inputs_embeds=known.embeddings,
            attention_mask=known.mask,
            position_ids=positions_of(known.mask),
            past_key_values=cache,
            use_cache=True,
            **vision_argument(known.vision),
        )
    copies = max(options.get("num_beams", 1), options.get("num_return_sequences", 1))
    if copies > 1:
        cache.batch_repeat_interleave(copies)
    found: Tensor = model.llm.generate(
        input_ids=ids.masked_fill(ids == IMAGE_TOKEN_ID, 0),
        attention_mask=mask.to(ids.dtype),
        past_key_values=cache,
        **options,
    )
    return found[:, ids.shape[1] :]


def _is_windowed(model: MultimodalModel, length: int) -> bool:
    """Return whether some of the LLM's layers see fewer places than these."""
    window: int | None = getattr(model.llm.config, "sliding_window", None)
    return window is not None and length > window


def _closing_order(mask: Bool[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """For every place of a row whose masked positions stand first, where its content stands now."""
    order: Tensor = mask.to(torch.int8).argsort(dim=1, stable=True)
    return order


def _close_gaps(prompt: Prompt, *, length: int) -> Prompt:
    """Move the real positions of every row to its end, and keep the first `length`; what is cut off must be text."""
    order = _closing_order(prompt.mask)
    embeddings = prompt.embeddings.gather(1, order[..., None].expand_as(prompt.embeddings))
    vision = None
    if prompt.vision is not None:
        starts = torch.arange(len(order), device=order.device)[:, None] * length
        places = (order.argsort(dim=1) + starts).flatten()
        vision = Vision(prompt.vision.evidence, places[prompt.vision.rows])
    return Prompt(embeddings[:, :length], prompt.mask.gather(1, order)[:, :length], vision)


def _most_likely(model: MultimodalModel, hidden: Tensor) -> Tensor:
    ids: Tensor = model.llm.lm_head(hidden).argmax(dim=-1)
    return ids


def _until(ids: list[int], end_id: int) -> list[int]:
    return ids[: ids.index(end_id)] if end_id in ids else ids
