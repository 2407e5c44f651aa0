"""What a forecast assumes: the hardware, how well it is used, how long samples are, and what may be spent."""

from __future__ import annotations

from pydantic import Field

from cambrian.params import Params


class HardwareConfig(Params):
    """The machines that a scale trains on."""

    name: str
    num_devices: int = Field(gt=0)
    memory_gib: float = Field(gt=0)
    """Of one device."""
    peak_tflops: float = Field(gt=0)
    """Of one device, dense, in the precision that training computes in."""
    price_per_hour: float = Field(ge=0)
    """Of one device."""
    currency: str


class UseConfig(Params):
    """How well training uses its devices: stated before a run, compared with the run afterwards."""

    align_utilisation: float = Field(gt=0, le=1)
    """Model FLOPs (no recomputation) over the peak, first phase."""
    finetune_utilisation: float = Field(gt=0, le=1)
    """The same, second phase."""
    start_s: float = Field(ge=0)
    """Seconds of a phase before its first step and after its last: imports, weights, writing."""
    reserve_gib: float = Field(ge=0)
    """Memory of a device that is neither weights, states nor activations: the framework, its buffers, fragments."""


class SampleConfig(Params):
    """What the samples of one pool are like on average, before anything was collected."""

    text_tokens: float = Field(gt=0)
    """Tokens of a conversation, without its image."""
    variation: float = Field(ge=0)
    """Standard deviation of a sample's length over its mean; attention grows with the square."""
    image_share: float = Field(ge=0, le=1)
    """Samples with an image."""
    visible_share: float = Field(gt=0, le=1)
    """Cells of an image that do not lie in padding."""
    labelled_share: float = Field(gt=0, le=1)
    """Of the text tokens."""


class BudgetConfig(Params):
    """What all training of a scale may cost together; a forecast above it stops the pipeline before it trains."""

    device_hours: float = Field(ge=0)
    money: float = Field(ge=0)


class ForecastConfig(Params):
    """The block `forecast` of a scale's file."""

    hardware: HardwareConfig
    use: UseConfig
    samples: dict[str, SampleConfig]
    """By pool."""
    budget: BudgetConfig
