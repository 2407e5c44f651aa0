from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cambrian.interfaces import IGNORE_LABEL, Batch
from cambrian.models.multimodal import MultimodalModel, positions_of
from cambrian.models.packing import ATTENTION_NAME, find_segments
from tests.models.conftest import make_batch, make_model

SIZES = [(9, 9), (8, 4), (3, 9), (5, 5)]
SAMPLES: list[list[int | str]] = [
    [1, 5, "image", 7, 8, 9, 3, 2],
    [1, "image", 4, 5, "image", 6],
    [1, 2, 3, 4, 5, 6, 7],
    ["image", 11, 12, 13, 14],
]


@pytest.fixture(params=["mlp", "sva-in-llm"])
def model(request: pytest.FixtureRequest, backbones: Path) -> MultimodalModel:
    return make_model(backbones, request.param).double()


def padded_loss(model: MultimodalModel, batch: Batch) -> Tensor:
    """The same loss with the whole padded batch in the LLM: positions and masks as `generate` has them."""
    prompt = model.embed(batch)
    arguments = {} if prompt.vision is None else {"vision": prompt.vision}
    hidden = model.llm.model(
        inputs_embeds=prompt.embeddings, attention_mask=prompt.mask, position_ids=positions_of(prompt.mask), **arguments
    ).last_hidden_state
    losses = []
    for row in range(len(prompt.mask)):
        real = prompt.mask[row]
        logits, labels = model.llm.lm_head(hidden[row][real])[:-1], batch.labels[row][real][1:]
        losses.append(F.cross_entropy(logits, labels, ignore_index=IGNORE_LABEL, reduction="sum"))
    count = sum(int((batch.labels[row][prompt.mask[row]][1:] != IGNORE_LABEL).sum()) for row in range(len(losses)))
    return torch.stack(losses).sum() / count


def test_a_packed_step_is_the_padded_step_that_it_replaces(model: MultimodalModel) -> None:
    batch = make_batch(model, SAMPLES, SIZES)
    assert batch.images is not None
    batch.images.pixels = [pixels.double() for pixels in batch.images.pixels]
    model.set_trainable({"connector", "llm"})
    gradients = []
    losses = [model.loss(batch), padded_loss(model, batch)]
    for loss in losses:
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    # The loss is float32 in any model, and so are the rotations inside transformers' LLMs.
    torch.testing.assert_close(losses[0].double(), losses[1].double(), atol=0, rtol=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-5)


def test_only_real_tokens_reach_the_llm(model: MultimodalModel) -> None:
    batch = make_batch(model, SAMPLES, SIZES)
    assert batch.images is not None
    batch.images.pixels = [pixels.double() for pixels in batch.images.pixels]
    seen: list[tuple[int, ...]] = []
    model.llm.model.layers[0].register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[:2])))
    model.loss(batch)
    with torch.no_grad():
        num_real = int(model.embed(batch).mask.sum())
    assert seen == [(1, num_real)]
    assert num_real < batch.input_ids.numel()


def test_segments_close_up_what_padding_and_holes_leave_open() -> None:
    mask = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 1], [1, 0, 0, 0]]).bool()
    segments = find_segments(mask)
    assert segments.places.tolist() == [0, 1, 2, 3, 4, 6]
    assert segments.starts.tolist() == [True, False, False, True, False, True]
    packed = torch.arange(1.0, 7.0)[:, None]
    padded = segments.unpack(packed)
    assert padded[..., 0].tolist() == [[1, 2, 3], [4, 5, 0], [6, 0, 0]]
    assert torch.equal(segments.pack(padded), packed)


def test_a_sample_longer_than_a_sliding_window_is_refused() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    segments = find_segments(torch.ones(1, 5, dtype=torch.bool))
    heads = torch.zeros(1, 2, 5, 4)
    with pytest.raises(ValueError, match=r"5 tokens is longer than the LLM's sliding window of 3.*max_length"):
        ALL_ATTENTION_FUNCTIONS[ATTENTION_NAME](
            SimpleNamespace(), heads, heads, heads, None, segments=segments, sliding_window=3
        )
