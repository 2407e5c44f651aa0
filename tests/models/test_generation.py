from pathlib import Path
from typing import Any

import pytest
import torch

from cambrian.interfaces import Batch
from cambrian.models.generation import generate, generate_with_options
from cambrian.models.multimodal import MultimodalModel
from tests.models.conftest import CONNECTORS, VOCABULARY, make_batch, make_model, take_images

PROMPTS: list[list[int | str]] = [[1, 5, "image", 7], [1, "image", 4, "image", 6], [1, 2], ["image", 11, 12]]
SIZES = [(9, 9), (8, 4), (5, 5), (3, 9)]
NO_END = VOCABULARY


@pytest.fixture(params=CONNECTORS)
def model(request: pytest.FixtureRequest, backbones: Path) -> MultimodalModel:
    return make_model(backbones, request.param)


def repeated_forward(model: MultimodalModel, prompt: list[int | str], batch: Batch, num_tokens: int) -> list[int]:
    """Greedy decoding without a cache: the whole sequence again for every token."""
    new: list[int] = []
    for _ in range(num_tokens):
        longer = make_batch(model, [[*prompt, *new]], [])
        longer.images = batch.images
        with torch.no_grad():
            new.append(int(model(longer)[0, -1].argmax()))
    return new


def test_a_batch_generates_what_its_prompts_generate_alone_and_without_a_cache(model: MultimodalModel) -> None:
    batch = make_batch(model, PROMPTS, SIZES)
    assert batch.images is not None
    together = generate(model, batch, max_new_tokens=5, end_id=NO_END)
    for row, images in enumerate([[0], [1, 2], [], [3]]):
        alone = make_batch(model, PROMPTS[row : row + 1], [SIZES[image] for image in images])
        alone.images = take_images(batch.images, images) if images else None
        assert generate(model, alone, max_new_tokens=5, end_id=NO_END) == [together[row]]
        assert repeated_forward(model, PROMPTS[row], alone, 5) == together[row]


def test_prompts_padded_on_the_left_generate_the_same(model: MultimodalModel) -> None:
    batch = make_batch(model, PROMPTS, SIZES)
    lengths = batch.attention_mask.sum(dim=1).tolist()
    ids, labels, mask = (
        torch.stack([torch.roll(row, len(row) - n) for row, n in zip(part, lengths, strict=True)])
        for part in (batch.input_ids, batch.labels, batch.attention_mask)
    )
    left = Batch(ids, labels, mask, batch.images)
    assert generate(model, left, max_new_tokens=4, end_id=NO_END) == generate(
        model, batch, max_new_tokens=4, end_id=NO_END
    )


def test_each_reply_stops_before_its_own_end_token(model: MultimodalModel) -> None:
    batch = make_batch(model, PROMPTS, SIZES)
    free = generate(model, batch, max_new_tokens=5, end_id=NO_END)
    end_id = free[0][1]
    stopped = generate(model, batch, max_new_tokens=5, end_id=end_id)
    assert stopped == [ids[: ids.index(end_id)] if end_id in ids else ids for ids in free]


def test_no_more_than_the_limit_is_generated(model: MultimodalModel) -> None:
    batch = make_batch(model, PROMPTS, SIZES)
    assert [len(ids) for ids in generate(model, batch, max_new_tokens=1, end_id=NO_END)] == [1, 1, 1, 1]


@pytest.fixture(params=["mlp", "sva-in-llm"])
def one_of_two(request: pytest.FixtureRequest, backbones: Path) -> MultimodalModel:
    return make_model(backbones, request.param)


def test_transformers_generate_without_options_is_greedy_too(one_of_two: MultimodalModel) -> None:
    batch = make_batch(one_of_two, PROMPTS, SIZES)
    found = generate_with_options(
        one_of_two, batch, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=NO_END
    )
    assert found.tolist() == generate(one_of_two, batch, max_new_tokens=4, end_id=NO_END)


def test_beams_of_a_batch_are_those_of_its_prompts_alone(one_of_two: MultimodalModel) -> None:
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "num_beams": 3, "num_return_sequences": 2}
    options |= {"pad_token_id": 0, "eos_token_id": NO_END}
    batch = make_batch(one_of_two, PROMPTS, SIZES)
    together = generate_with_options(one_of_two, batch, **options).tolist()
    assert len(together) == 2 * len(PROMPTS)
    for row, images in enumerate([[0], [1, 2], [], [3]]):
        alone = make_batch(one_of_two, PROMPTS[row : row + 1], [])
        alone.images = take_images(batch.images, images) if images and batch.images is not None else None
        assert generate_with_options(one_of_two, alone, **options).tolist() == together[2 * row : 2 * row + 2]


def test_sampling_draws_from_torch_s_generator(backbones: Path) -> None:
    model = make_model(backbones, "sva-in-llm")
    batch, drawn = make_batch(model, PROMPTS, SIZES), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(generate_with_options(model, batch, max_new_tokens=5, do_sample=True, top_k=0, pad_token_id=0))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_prompt_that_ends_with_an_image_is_refused_where_token_ids_are_needed(backbones: Path) -> None:
    model = make_model(backbones, "mlp")
    batch = make_batch(model, [[1, "image", 3], [1, "image"]], [(9, 9), (9, 9)])
    with pytest.raises(ValueError, match="prompt 1 of the batch ends with an image, expected text after it"):
        generate_with_options(model, batch, max_new_tokens=1, pad_token_id=0)
