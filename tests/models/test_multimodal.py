from pathlib import Path

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from cambrian.interfaces import IGNORE_LABEL, Batch
from cambrian.models.multimodal import PARTS, MultimodalModel
from cambrian.models.weights import build_model
from tests.models.conftest import CONNECTORS, make_batch, make_model, model_config, real_logits, take_images

# float32 through three random layers, summed in another order by other batch shapes
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
SIZES = [(9, 9), (8, 4), (3, 9), (5, 5)]
SAMPLES: list[list[int | str]] = [
    [1, 5, "image", 7, 8, 9],
    [1, "image", 4, "image", 6],
    [1, 2, 3, 4, 5, 6, 7],
    ["image", 11, 12, 13, 14],
]


@pytest.fixture(params=CONNECTORS)
def model(request: pytest.FixtureRequest, backbones: Path) -> MultimodalModel:
    return make_model(backbones, request.param)


def test_a_sample_does_not_depend_on_its_batch_nor_on_padding(model: MultimodalModel) -> None:
    batch = make_batch(model, SAMPLES, SIZES)
    assert batch.images is not None
    together = real_logits(model, batch)
    for row, images in enumerate([[0], [1, 2], [], [3]]):
        alone = make_batch(model, SAMPLES[row : row + 1], [SIZES[image] for image in images])
        alone.images = take_images(batch.images, images) if images else None
        (logits,) = real_logits(model, alone)
        visible = visible_rows(model, alone)
        torch.testing.assert_close(logits[visible], together[row][visible], **TOLERANCE)


def visible_rows(model: MultimodalModel, batch: Batch) -> torch.Tensor:
    """Positions that the LLM sees: hidden cells of a padded image have no meaning."""
    with torch.no_grad():
        return model.embed(batch).mask[batch.attention_mask]


def test_padding_on_the_left_changes_nothing(model: MultimodalModel) -> None:
    batch = make_batch(model, SAMPLES, SIZES)
    lengths = batch.attention_mask.sum(dim=1)
    turned = [torch.stack([torch.roll(row, len(row) - int(n)) for row, n in zip(part, lengths, strict=True)])
              for part in (batch.input_ids, batch.labels, batch.attention_mask)]  # fmt: skip
    left = Batch(turned[0], turned[1], turned[2], batch.images)
    for ours, expected, visible in zip(
        real_logits(model, left), real_logits(model, batch), rows_visible(model, batch), strict=True
    ):
        torch.testing.assert_close(ours[visible], expected[visible], **TOLERANCE)
    torch.testing.assert_close(model.loss(left), model.loss(batch), **TOLERANCE)


def rows_visible(model: MultimodalModel, batch: Batch) -> list[torch.Tensor]:
    with torch.no_grad():
        seen = model.embed(batch).mask
    return [row[mask] for row, mask in zip(seen, batch.attention_mask, strict=True)]


def test_text_alone_is_the_plain_llm_and_runs_no_encoder(
    model: MultimodalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "encode", lambda images: pytest.fail("an encoder ran"))
    batch = make_batch(model, [[1, 2, 3, 4]], [])
    with torch.no_grad():
        expected = model.llm(input_ids=batch.input_ids).logits[0]
    assert torch.equal(real_logits(model, batch)[0], expected)


def test_an_image_batch_leaves_nothing_behind_for_the_next_text(model: MultimodalModel) -> None:
    text = make_batch(model, [[1, 2, 3, 4, 5, 6, 7, 8, 9]], [])
    (before,) = real_logits(model, text)
    real_logits(model, make_batch(model, SAMPLES, SIZES))
    assert torch.equal(real_logits(model, text)[0], before)


def test_the_image_changes_what_follows_and_nothing_before(model: MultimodalModel) -> None:
    batch = make_batch(model, [[1, 5, "image", 7, 8]], [(9, 9)])
    assert batch.images is not None
    (before,) = real_logits(model, batch)
    batch.images.pixels[0] = batch.images.pixels[0] + 1.0
    (after,) = real_logits(model, batch)
    assert torch.equal(after[:2], before[:2])
    assert (after[-1] - before[-1]).abs().max() > 1e-4


def test_the_second_image_of_a_sample_does_not_change_what_stands_before_it(model: MultimodalModel) -> None:
    batch = make_batch(model, [[1, "image", 4, "image", 6]], [(9, 9), (5, 5)])
    assert batch.images is not None
    (before,) = real_logits(model, batch)
    batch.images.pixels[0][1] += 1.0
    (after,) = real_logits(model, batch)
    first = 2 + model.num_image_positions
    torch.testing.assert_close(after[:first], before[:first], **TOLERANCE)
    assert (after[-1] - before[-1]).abs().max() > 1e-4


def test_the_loss_is_the_mean_over_labelled_positions_predicted_from_the_one_before(model: MultimodalModel) -> None:
    batch = make_batch(model, SAMPLES, SIZES)
    with torch.no_grad():
        logits = model(batch)
        losses = [
            F.cross_entropy(logits[row, position - 1], batch.labels[row, position])
            for row, position in (batch.labels != IGNORE_LABEL).nonzero().tolist()
        ]
        torch.testing.assert_close(model.loss(batch), torch.stack(losses).mean(), **TOLERANCE)


def test_the_losses_of_samples_are_the_parts_of_the_mean(model: MultimodalModel) -> None:
    batch = make_batch(model, SAMPLES, SIZES)
    assert batch.images is not None
    mean, by_sample = model.losses(batch)
    assert not by_sample.requires_grad
    assert by_sample[:, 1].tolist() == (batch.labels != IGNORE_LABEL).sum(dim=1).tolist()
    torch.testing.assert_close(by_sample[:, 0].sum() / by_sample[:, 1].sum(), mean.detach(), atol=1e-6, rtol=1e-6)
    for row, images in ((0, [0]), (2, []), (3, [3])):
        alone = make_batch(model, SAMPLES[row : row + 1], [SIZES[image] for image in images])
        alone.images = take_images(batch.images, images) if images else None
        torch.testing.assert_close(by_sample[row, 0] / by_sample[row, 1], model.loss(alone).detach(), **TOLERANCE)


def test_the_loss_reaches_all_that_trains_and_nothing_that_is_frozen(model: MultimodalModel) -> None:
    model.train()
    batch = make_batch(model, SAMPLES, SIZES)
    model.loss(batch).backward()
    parts = model.parts()
    assert all(parameter.grad is None for parameter in parts["encoders"])
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    model.set_trainable({"encoders"})
    model.zero_grad(set_to_none=True)
    model.loss(batch).backward()
    assert any(parameter.grad is not None for parameter in parts["encoders"])
    assert all(parameter.grad is None for parameter in [*parts["connector"], *parts["llm"]])


def test_every_parameter_belongs_to_exactly_one_part(model: MultimodalModel) -> None:
    parts = model.parts()
    assert tuple(parts) == PARTS
    ids = [id(parameter) for part in parts.values() for parameter in part]
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())


def test_frozen_encoders_stay_in_evaluation_mode(model: MultimodalModel) -> None:
    model.train()
    assert not model.encoders.training or not any(module.training for module in model.encoders[0].modules())
    model.set_trainable({"encoders"})
    assert model.train().encoders[0].training


def test_a_wrong_number_of_image_positions_names_both_numbers(model: MultimodalModel) -> None:
    batch = make_batch(model, [[1, "image", 2, 3]], [(9, 9), (9, 9)])
    with pytest.raises(ValueError, match=f"{model.num_image_positions} image positions .* expected 2 images x"):
        model.loss(batch)


def test_image_positions_without_images_are_an_error(model: MultimodalModel) -> None:
    batch = make_batch(model, [[1, "image", 2, 3]], [(9, 9)])
    batch.images = None
    with pytest.raises(ValueError, match="expected 0 images"):
        model.loss(batch)


def test_a_batch_without_labels_names_its_records(model: MultimodalModel) -> None:
    batch = make_batch(model, [[1, 2, 3]], [])
    batch.labels.fill_(IGNORE_LABEL)
    batch.record_ids = ["record-7"]
    with pytest.raises(ValueError, match="record-7"):
        model.loss(batch)


def test_an_unknown_part_is_refused(model: MultimodalModel) -> None:
    with pytest.raises(ValueError, match="unknown part"):
        model.set_trainable({"projector"})


def test_the_same_seed_gives_the_same_connector_and_touches_no_other_randomness(backbones: Path) -> None:
    torch.manual_seed(5)
    first = build_model(model_config("sva-in-llm"), backbones=backbones, seed=1)
    torch.manual_seed(6)
    drawn = torch.rand(1)
    torch.manual_seed(6)
    second = build_model(model_config("sva-in-llm"), backbones=backbones, seed=1)
    other = build_model(model_config("sva-in-llm"), backbones=backbones, seed=2)
    assert torch.equal(torch.rand(1), drawn)
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.connector.queries, other.connector.queries)
