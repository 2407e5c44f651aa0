"""What the trainings of a scale will take: operations, hours, memory, bytes and money, and whether that is allowed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cambrian.interfaces import ParamsError
from cambrian.planning.memory import GIB, Memory, Sharding, estimate_memory, state_bytes
from cambrian.planning.rehearsal import PhaseFacts, Rehearsal
from cambrian.training.config import LocalEngineConfig

if TYPE_CHECKING:
    from cambrian.planning.config import ForecastConfig
    from cambrian.planning.experiment import Experiment, PhasePlan

_SECONDS_PER_HOUR = 3600.0
_TERA = 1e12
_NUM_NAMED = 4
_ITEMSIZES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Change:
    """What is asked about beside what the scale's file says; None leaves it as it is there."""

    num_devices: int | None = None
    zero_stage: int | None = None
    micro_batch_size: int | None = None

    def apply(self, sharding: Sharding) -> Sharding:
        """The layout with these changes."""
        return replace(
            sharding,
            num_devices=self.num_devices or sharding.num_devices,
            zero_stage=sharding.zero_stage if self.zero_stage is None else self.zero_stage,
        )

    def resize(self, plan: PhasePlan) -> PhasePlan:
        """The phase with the micro batch that is asked about."""
        if self.micro_batch_size is None:
            return plan
        return replace(plan, recipe=plan.recipe.model_copy(update={"micro_batch_size": self.micro_batch_size}))


@dataclass(frozen=True, slots=True)
class PhaseForecast:
    """What one row's training will take."""

    facts: PhaseFacts
    sharding: Sharding
    memory: Memory
    device_hours: float
    model_bytes: float
    """Of the parts that the phase writes."""
    checkpoint_bytes: float
    """Of the checkpoints that are kept while it runs."""
    money: float

    @property
    def minutes(self) -> float:
        """By the clock, on all devices at once."""
        return self.device_hours / self.sharding.num_devices * 60


@dataclass(frozen=True, slots=True)
class Forecast:
    """What all trainings of a scale will take."""

    scale: str
    config: ForecastConfig
    phases: tuple[PhaseForecast, ...]

    @property
    def device_hours(self) -> float:
        """Of all phases."""
        return sum(phase.device_hours for phase in self.phases)

    @property
    def money(self) -> float:
        """Of all phases."""
        return sum(phase.money for phase in self.phases)

    @property
    def model_bytes(self) -> float:
        """Of everything that phases write and keep; checkpoints are removed when a phase ends."""
        return sum(phase.model_bytes for phase in self.phases)

    def warnings(self) -> list[str]:
        """Name every phase that does not fit its device."""
        hardware = self.config.hardware
        return [
            f"{phase.facts.plan.key} needs {phase.memory.total / GIB:.1f} GiB on each device, {hardware.name} has "
            f"{hardware.memory_gib:g}: raise the ZeRO stage ({phase.sharding.zero_stage}), lower micro_batch_size "
            f"({phase.facts.plan.recipe.micro_batch_size}), offload, or take more devices "
            f"({phase.sharding.num_devices})"
            for phase in self.phases
            if phase.memory.total / GIB > hardware.memory_gib
        ]

    def excess(self) -> list[str]:
        """Say by what the budget would be exceeded; empty where it holds."""
        budget, hardware = self.config.budget, self.config.hardware
        largest = sorted(self.phases, key=lambda phase: -phase.device_hours)[:_NUM_NAMED]
        named = ", ".join(f"{phase.facts.plan.key} {phase.device_hours:.3g} h" for phase in largest)
        excess = []
        if self.device_hours > budget.device_hours:
            excess.append(
                f"{self.device_hours:.3g} device-hours, forecast.budget.device_hours allows {budget.device_hours:g}"
            )
        if self.money > budget.money:
            excess.append(f"{self.money:.4g} {hardware.currency}, forecast.budget.money allows {budget.money:g}")
        return [f"scale {self.scale} would take {' and '.join(excess)}; the largest: {named}"] if excess else []

    def check_budget(self) -> None:
        """Refuse a forecast above the budget.

        Raises:
            ParamsError: says by how much, and which rows cost most.
        """
        if excess := self.excess():
            raise ParamsError(
                f"{excess[0]}. Nothing was trained: leave rows out, or raise forecast.budget in the scale's file"
            )


def make_forecast(experiment: Experiment, change: Change) -> Forecast:
    """Rehearse every phase and say what it will take.

    Raises:
        ParamsError: a model cannot be built, or a phase's values do not fit each other.
    """
    rehearsal = Rehearsal(experiment)
    sharding = change.apply(sharding_of(experiment))
    phases = [
        forecast_phase(rehearsal.rehearse(change.resize(plan)), experiment.forecast, sharding)
        for plan in experiment.phases
    ]
    return Forecast(experiment.scale, experiment.forecast, tuple(phases))


def forecast_phase(facts: PhaseFacts, config: ForecastConfig, sharding: Sharding) -> PhaseForecast:
    """Say what one phase will take."""
    use, hardware = config.use, config.hardware
    utilisation = use.align_utilisation if facts.plan.table == "adapters" else use.finetune_utilisation
    seconds = facts.flops / (hardware.peak_tflops * _TERA * utilisation) + use.start_s * sharding.num_devices
    hours = seconds / _SECONDS_PER_HOUR
    model_bytes = float(sum(facts.trained.values()) * sharding.itemsize)
    states = state_bytes(facts, sharding)
    return PhaseForecast(
        facts=facts,
        sharding=sharding,
        memory=estimate_memory(facts, config.samples[facts.plan.pool], sharding, reserve=use.reserve_gib * GIB),
        device_hours=hours,
        model_bytes=model_bytes,
        checkpoint_bytes=(model_bytes + states) * facts.plan.recipe.checkpoints.num_kept,
        money=hours * hardware.price_per_hour,
    )


def sharding_of(experiment: Experiment) -> Sharding:
    """How the scale's engine lays training out."""
    engine, num_devices = experiment.training.engine, experiment.forecast.hardware.num_devices
    if isinstance(engine, LocalEngineConfig):
        return Sharding(
            num_devices=num_devices,
            zero_stage=0,
            offloads_optimizer=False,
            itemsize=_ITEMSIZES["float32"],
            recomputes=engine.recompute_activations,
        )
    return Sharding(
        num_devices=num_devices,
        zero_stage=engine.zero_stage,
        offloads_optimizer=engine.offload != "none",
        itemsize=_ITEMSIZES[engine.precision],
        recomputes=engine.recompute_activations,
    )
