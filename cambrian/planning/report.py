"""A forecast as JSON, which the report sets beside the minutes of the run, and as a table to read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import write_json
from cambrian.planning.memory import GIB

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.planning.forecast import Forecast, PhaseForecast

_PLACES = 4
"""Significant digits of what is estimated."""


def forecast_to_json(forecast: Forecast) -> dict[str, Any]:
    """The whole forecast; docs/design.md has the form."""
    return {
        "scale": forecast.scale,
        "assumptions": forecast.config.model_dump(mode="json"),
        "phases": {phase.facts.plan.key: _phase_to_json(phase) for phase in forecast.phases},
        "total": {
            "flops": _round(sum(phase.facts.flops for phase in forecast.phases)),
            "device_hours": _round(forecast.device_hours),
            "model_bytes": int(forecast.model_bytes),
            "money": _round(forecast.money),
        },
        "warnings": forecast.warnings(),
    }


def write_forecast(forecast: Forecast, output: Path, verdict: Path) -> None:
    """Write the forecast, then check the budget, then write the verdict that training waits for.

    The verdict says nothing but that the budget holds, so that another price trains nothing again.

    Raises:
        ParamsError: the budget would be exceeded; the forecast is there to read, the verdict is not.
        ArtifactError: a file cannot be written.
    """
    write_json(output, forecast_to_json(forecast))
    forecast.check_budget()
    write_json(verdict, {"within_budget": True})


def print_forecast(forecast: Forecast) -> None:
    """Print the table, its totals and its warnings."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False)
    hardware = forecast.config.hardware
    table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False)
    for column in ("row", "params M", "trained M", "samples", "tokens M", "encoders", "connector", "LLM", "PFLOP"):
        table.add_column(column, justify="left" if column == "row" else "right", no_wrap=True)
    for column in ("device-h", "minutes", "GiB", "fits", "store GB", hardware.currency):
        table.add_column(column, justify="right", no_wrap=True)
    for phase in forecast.phases:
        table.add_row(*_cells(phase, hardware.memory_gib))
    console.print(table)
    first = forecast.phases[0].sharding
    console.print(
        f"scale {forecast.scale} on {first.num_devices} x {hardware.name} ({hardware.peak_tflops:g} TFLOP/s, "
        f"{hardware.memory_gib:g} GiB each), ZeRO stage {first.zero_stage}: {forecast.device_hours:.4g} device-hours, "
        f"{forecast.money:.4g} {hardware.currency}, {forecast.model_bytes / 1e9:.4g} GB to store"
    )
    for warning in [*forecast.warnings(), *forecast.excess()]:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def _cells(phase: PhaseForecast, room_gib: float) -> list[str]:
    facts = phase.facts
    return [
        facts.plan.key,
        f"{sum(facts.model.parameters.values()) / 1e6:.4g}",
        f"{sum(facts.trained.values()) / 1e6:.4g}",
        str(facts.amount.samples),
        f"{facts.amount.tokens / 1e6:.4g}",
        *(f"{cost.flops / 1e15:.3g}" for cost in (facts.encoders, facts.connector, facts.llm)),
        f"{facts.flops / 1e15:.4g}",
        f"{phase.device_hours:.3g}",
        f"{phase.minutes:.3g}",
        f"{phase.memory.total / GIB:.3g}",
        "yes" if phase.memory.total / GIB <= room_gib else "NO",
        f"{phase.model_bytes / 1e9:.3g}",
        f"{phase.money:.4g}",
    ]


def _phase_to_json(phase: PhaseForecast) -> dict[str, Any]:
    facts = phase.facts
    return {
        "stage": facts.plan.stage,
        "adapter": facts.plan.adapter,
        "parameters": facts.model.parameters,
        "trained": facts.trained,
        "records": facts.plan.num_records,
        "steps": facts.steps,
        "samples": facts.amount.samples,
        "images": round(facts.amount.images),
        "tokens": round(facts.amount.tokens),
        "flops": {
            "encoders": _round(facts.encoders.flops),
            "connector": _round(facts.connector.flops),
            "llm": _round(facts.llm.flops),
            "total": _round(facts.flops),
        },
        "num_devices": phase.sharding.num_devices,
        "zero_stage": phase.sharding.zero_stage,
        "micro_batch_size": facts.plan.recipe.micro_batch_size,
        "memory_gib": phase.memory.to_json(),
        "device_hours": _round(phase.device_hours),
        "minutes": _round(phase.minutes),
        "model_bytes": int(phase.model_bytes),
        "checkpoint_bytes": int(phase.checkpoint_bytes),
        "money": _round(phase.money),
    }


def _round(value: float) -> float:
    return float(f"{value:.{_PLACES}g}")
