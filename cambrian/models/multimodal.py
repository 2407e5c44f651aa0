"""The whole model: encoders, connector, and an LLM whose image positions hold visual tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, Batch, ImageBatch, ImageSpec
from cambrian.models.aggregator import Aggregator, Evidence
from cambrian.models.config import AggregatorsConfig
from cambrian.models.connector import Connector, TokenLayout
from cambrian.models.encoders import VisionEncoder
from cambrian.models.llm_aggregators import Vision, attach_aggregators
from cambrian.models.packing import NO_MASK_NEEDED, Segments, find_segments, use_packed_attention
from cambrian.models.sva import SVAConnector

PARTS = ("connector", "llm", "encoders")
"""What can be trained or stored apart; aggregators inside the LLM and newlines belong to the connector."""


@dataclass(slots=True)
class Prompt:
    """A batch as the LLM takes it."""

    embeddings: Float[Tensor, "batch length dim"]
    mask: Bool[Tensor, "batch length"]
    """True at real positions: neither text padding nor hidden cells of an image."""
    vision: Vision | None


class MultimodalModel(nn.Module):
    """A multimodal LLM. Images may stand anywhere in a sample, any number of them; padding may be on either side."""

    def __init__(
        self,
        *,
        encoders: Sequence[VisionEncoder],
        connector: Connector,
        layout: TokenLayout,
        aggregators: Sequence[nn.Module],
        in_llm: AggregatorsConfig | None,
        llm: nn.Module,
        backbone_hashes: dict[str, str],
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.connector = connector
        self.layout = layout
        self.aggregators = nn.ModuleList(aggregators)
        self.llm: Any = llm
        """A `...ForCausalLM` of transformers."""
        self.backbone_hashes = backbone_hashes
        """SHA-256 of the weights of the backbones that the model was built from, by name."""
        use_packed_attention(llm)
        if in_llm is not None:
            layers = list(llm.get_submodule("model.layers").children())
            attach_aggregators(layers, aggregators, start=in_llm.start, stride=in_llm.stride)

    @property
    def num_image_positions(self) -> int:
        """Positions that one image fills in `input_ids`: visual tokens and newlines."""
        return self.layout.num_positions

    @property
    def image_specs(self) -> list[ImageSpec]:
        """What each encoder wants its images to look like, in the order of `ImageBatch.pixels`."""
        return [encoder.image_spec for encoder in self.encoders if isinstance(encoder, VisionEncoder)]

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by part; each parameter belongs to exactly one."""
        return {name: list(self._part(name).parameters()) for name in PARTS}

    def aggregator_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all spatial vision aggregators, in the connector and in the LLM, and their queries.

        They are of the connector's part; a recipe may give them a learning rate of their own.
        """
        parameters = [self.connector.queries] if isinstance(self.connector, SVAConnector) else []
        for module in (self.connector, self.aggregators):
            for inner in module.modules():
                if isinstance(inner, Aggregator):
                    parameters.extend(inner.parameters())
        return parameters

    def set_trainable(self, parts: set[str]) -> None:
        """Let these parts learn and freeze the others.

        Raises:
            ValueError: a name that is no part.
        """
        if unknown := parts - set(PARTS):
            raise ValueError(f"unknown part {sorted(unknown)}: a model has {', '.join(PARTS)}")
        for name in PARTS:
            self._part(name).requires_grad_(name in parts)

    def recompute_activations(self) -> None:
        """Keep only the input of each LLM layer for the backward pass, and compute the rest again there."""
        self.llm.activation_checkpointing_enable({"use_reentrant": False})

    def train(self, mode: bool = True) -> "MultimodalModel":
        """Switch to training; frozen encoders stay as they are at evaluation."""
        super().train(mode)
        for encoder in self.encoders:
            encoder.train(mode and _is_trainable(encoder))
        return self

    def forward(self, batch: Batch) -> Float[Tensor, "batch length vocabulary"]:
        """Return the logits of every position; those of padding and of hidden cells are zeros."""
        prompt = self.embed(batch)
        logits: Tensor = self.llm.lm_head(self._hidden_states(prompt, find_segments(prompt.mask)))
        flat = logits.new_zeros(prompt.mask.numel(), logits.shape[-1])
        filled = flat.index_copy(0, prompt.mask.flatten().nonzero().squeeze(1), logits)
        return filled.view(*prompt.mask.shape, -1)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the mean of `losses`."""
        return self.losses(batch)[0]

    def losses(self, batch: Batch) -> tuple[Float[Tensor, ""], Float[Tensor, "batch 2"]]:
        """Return the mean cross-entropy over labelled positions, each predicted from the visible position before it.

        Beside it, of every sample, the sum over its labelled positions and their number, without gradients. Only real
        tokens are computed, and the LLM's head runs on labelled positions only.

        Raises:
            ValueError: nothing in the batch is labelled (or only first positions, which nothing predicts).
        """
        prompt = self.embed(batch)
        segments = find_segments(prompt.mask)
        targets = batch.labels[prompt.mask][1:]
        labelled = (targets != IGNORE_LABEL) & ~segments.starts[1:]
        if not labelled.any():
            raise ValueError(f"no position of the batch is labelled: records {batch.record_ids}; drop them before")
        hidden = self._hidden_states(prompt, segments)[:-1][labelled]
        log_shares = F.log_softmax(self.llm.lm_head(hidden).float(), dim=-1)
        mean = F.nll_loss(log_shares, targets[labelled])  # the two halves of F.cross_entropy, to the bit
        rows = torch.arange(len(prompt.mask), device=hidden.device)[:, None].expand_as(prompt.mask)
        return mean, _sum_by_sample(log_shares.detach(), targets[labelled], rows[prompt.mask][1:][labelled], len(rows))

    def embed(self, batch: Batch) -> Prompt:
        """Return the batch's embeddings with visual tokens at the image positions.

        Raises:
            ValueError: the image positions are not those of the batch's images.
        """
        is_image = batch.input_ids == IMAGE_TOKEN_ID
        rows = is_image.flatten().nonzero().squeeze(1)
        self._check_images(len(rows), batch.images)
        embeddings = self.llm.get_input_embeddings()(batch.input_ids.masked_fill(is_image, 0))
        mask = batch.attention_mask
        if batch.images is None:
            return Prompt(embeddings, mask, None)
        visual = self.connector(self.encode(batch.images), batch.images.sizes)
        filled = self.layout(visual.tokens).flatten(0, 1)
        flat = embeddings.flatten(0, 1).index_copy(0, rows, filled.to(embeddings.dtype))
        visible = self.layout.visible(batch.images.sizes)
        if visible is not None:
            mask = mask.flatten().index_copy(0, rows, visible.flatten()).view_as(mask)
        vision = None
        if visual.evidence is not None:
            vision = Vision(visual.evidence, rows.view(len(visual.tokens), -1)[:, self.layout.token_index].flatten())
        return Prompt(flat.view_as(embeddings), mask, vision)

    def encode(self, images: ImageBatch) -> list[Tensor]:
        """Return every encoder's feature maps, one per layer; frozen encoders keep nothing for a backward pass."""
        return self.encode_views(images.pixels) if images.features is None else images.features

    def encode_views(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """Return what `encode` does, of every encoder's pixels."""
        features: list[Tensor] = []
        for encoder, views in zip(self.encoders, pixels, strict=True):
            with torch.set_grad_enabled(torch.is_grad_enabled() and _is_trainable(encoder)):
                features += encoder.maps(views) if isinstance(encoder, VisionEncoder) else [encoder(views)]
        return features

    def _hidden_states(self, prompt: Prompt, segments: Segments) -> Float[Tensor, "tokens dim"]:
        """Run the LLM on one row of all real tokens, without its head and without a cache."""
        hidden: Tensor = self.llm.model(
            inputs_embeds=prompt.embeddings[prompt.mask][None],
            attention_mask=NO_MASK_NEEDED,
            position_ids=positions_of(prompt.mask)[prompt.mask][None],
            use_cache=False,
            segments=segments,
            **vision_argument(_pack_vision(prompt.vision, prompt.mask)),
        ).last_hidden_state
        return hidden[0]

    def _check_images(self, found: int, images: ImageBatch | None) -> None:
        num_images = 0 if images is None else len(images.sizes)
        if found != num_images * self.num_image_positions:
            raise ValueError(
                f"{found} image positions in the batch, expected {num_images} images x {self.num_image_positions}: "
                "visual tokens would stand at the wrong places; the collator and the model disagree"
            )

    def _part(self, name: str) -> nn.Module:
        if name == "connector":
            return nn.ModuleList([self.connector, self.layout, self.aggregators])
        part: nn.Module = self.llm if name == "llm" else self.encoders
        return part


def positions_of(mask: Bool[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """Count the real positions from 0; a masked one repeats the number before it (the release's rule)."""
    return (mask.cumsum(dim=1) - 1).clamp_min(0)


def vision_argument(vision: Vision | None) -> dict[str, Vision]:
    """The argument that only an LLM with aggregators gets."""
    return {} if vision is None else {"vision": vision}


def _pack_vision(vision: Vision | None, mask: Bool[Tensor, "batch length"]) -> Vision | None:
    """What aggregators need to know when only the visible positions are there; hidden cells are left out."""
    if vision is None:
        return None
    visible = mask.flatten()
    kept = visible[vision.rows]
    evidence = vision.evidence
    if not kept.all():
        evidence_mask = None if evidence.mask is None else evidence.mask[kept]
        evidence = Evidence(evidence.features[kept], evidence_mask, evidence.context[kept])
    return Vision(evidence, (visible.cumsum(dim=0) - 1)[vision.rows[kept]])


def _sum_by_sample(
    log_shares: Float[Tensor, "labels vocabulary"],
    targets: Int[Tensor, " labels"],
    rows: Int[Tensor, " labels"],
    count: int,
) -> Float[Tensor, "batch 2"]:
    losses = -log_shares.gather(1, targets[:, None])
    return losses.new_zeros(count, 2).index_add_(0, rows, torch.cat([losses, torch.ones_like(losses)], dim=1))


def _is_trainable(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
