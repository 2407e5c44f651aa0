"""Greedy generation for batches of prompts, with a key-value cache."""

import torch
from torch import Tensor

from cambrian.interfaces import Batch
from cambrian.models.multimodal import MultimodalModel, positions_of, vision_argument


@torch.inference_mode()
def generate(model: MultimodalModel, batch: Batch, *, max_new_tokens: int, end_id: int) -> list[list[int]]:
    """Return each prompt's continuation, without the end token; a batch gives what its prompts give one by one.

    Prompts may be padded on either side. Aggregators inside the LLM act on the prompt only: its cached keys and values
    hold their effect.
    """
    from transformers.cache_utils import DynamicCache

    prompt = model.embed(batch)
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


def _most_likely(model: MultimodalModel, hidden: Tensor) -> Tensor:
    ids: Tensor = model.llm.lm_head(hidden).argmax(dim=-1)
    return ids


def _until(ids: list[int], end_id: int) -> list[int]:
    return ids[: ids.index(end_id)] if end_id in ids else ids
