"""Bytes on one device while a phase trains, by what holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cambrian.planning.config import SampleConfig
    from cambrian.planning.rehearsal import PhaseFacts

GIB = float(2**30)

_MASTER_BYTES = 4
"""A weight in single precision, kept by the optimizer where training computes in less."""

_STATE_BYTES = {"AdamW": 8, "Muon": 4}
"""Of one weight: two moments, or one, in single precision."""

_META_ITEMSIZE = 4
"""Models are rehearsed in single precision; what they keep shrinks with the precision of the run."""

_LONG_SAMPLE = 2.0
"""Standard deviations above the mean length of the samples that a device must have room for."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """How training is laid out over devices."""

    num_devices: int
    zero_stage: int
    """0 replicates everything; 1 shards optimizer states, 2 gradients too, 3 weights too."""
    offloads_optimizer: bool
    """Optimizer states live in the memory of the machine."""
    itemsize: int
    """Bytes of a weight, a gradient and an activation."""
    recomputes: bool
    """Activations of a decoder layer are computed again in the backward pass instead of kept."""

    def share(self, stage: int) -> float:
        """The part that one device holds of what is sharded from this ZeRO stage on."""
        return 1 / self.num_devices if self.zero_stage >= stage else 1.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    reserve: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.reserve

    def to_json(self) -> dict[str, float]:
        """In GiB."""
        parts = {name: getattr(self, name) for name in ("weights", "gradients", "optimizer", "activations", "reserve")}
        return {name: round(value / GIB, 3) for name, value in {**parts, "total": self.total}.items()}


def estimate_memory(facts: PhaseFacts, about: SampleConfig, sharding: Sharding, *, reserve: float) -> Memory:
    """Estimate the bytes of one device at the recipe's micro batch.

    Frozen encoders are whole on every device, outside ZeRO's partition. A frozen LLM is partitioned at stage 3.

    Source: Rajbhandari et al., ZeRO (arXiv 1910.02054), section 3, for the states; activations are counted.
    """
    trained = float(sum(facts.trained.values()))
    frozen = {part: facts.model.parameters[part] - facts.trained[part] for part in facts.model.parameters}
    replicated = float(frozen["encoders"])
    sharded = float(sum(frozen.values())) - replicated
    states = state_bytes(facts, sharding)
    return Memory(
        weights=sharding.itemsize * (replicated + (sharded + trained) * sharding.share(3)),
        gradients=sharding.itemsize * trained * sharding.share(2),
        optimizer=0.0 if sharding.offloads_optimizer else states * sharding.share(1),
        activations=_estimate_activations(facts, about, sharding),
        reserve=reserve,
    )


def state_bytes(facts: PhaseFacts, sharding: Sharding) -> float:
    """Bytes of the optimizers' states over all devices, weights in single precision among them where others compute."""
    states = sum(group.parameters * _STATE_BYTES[group.optimizer] for group in facts.groups)
    if sharding.itemsize < _MASTER_BYTES:
        states += sum(facts.trained.values()) * _MASTER_BYTES
    return float(states)


def _estimate_activations(facts: PhaseFacts, about: SampleConfig, sharding: Sharding) -> float:
    """What one micro batch of rather long samples keeps for its backward pass."""
    amount, micro_batch = facts.amount, facts.plan.recipe.micro_batch_size
    if not amount.samples:
        return 0.0
    length = amount.tokens / amount.samples
    tokens = micro_batch * min(length * (1 + _LONG_SAMPLE * about.variation), facts.plan.recipe.max_length)
    shrink = sharding.itemsize / _META_ITEMSIZE
    kept_per_token = facts.llm.kept_bytes / amount.tokens * shrink
    if sharding.recomputes:  # the input of every layer, and one layer at a time
        inputs = sharding.itemsize * facts.model.hidden_dim * facts.model.num_layers
        kept_per_token = inputs + kept_per_token / facts.model.num_layers
    labels = tokens * amount.labels / amount.tokens
    logits = labels * facts.model.vocabulary * (sharding.itemsize + 2 * _MASTER_BYTES)
    images = micro_batch * amount.images / amount.samples
    kept_per_image = (facts.connector.kept_bytes + facts.encoders.kept_bytes) / max(amount.images, 1.0) * shrink
    return tokens * kept_per_token + logits + images * kept_per_image
