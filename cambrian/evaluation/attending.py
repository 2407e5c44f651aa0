"""The share of attention that a run's aggregators give to each encoder, by benchmark (paper, NeurIPS table 22)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_manifest, write_json
from cambrian.evaluation.benchmarks.registry import read_items
from cambrian.interfaces import ArtifactError, ParamsError, RecordError
from cambrian.params import look_up
from cambrian.runtime import iter_progress, logged_step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jaxtyping import Float
    from torch import Tensor

    from cambrian.evaluation.answering import OwnAnswerer
    from cambrian.evaluation.config import AttentionConfig, PromptConfig
    from cambrian.interfaces import Item
    from cambrian.models.config import ConnectorConfig
    from cambrian.runtime import RuntimeConfig


def measure_attention(
    config: AttentionConfig,
    prompts: Mapping[str, PromptConfig],
    *,
    model: Path,
    backbones: Path,
    benchmarks: Path,
    runtime: RuntimeConfig,
    run: str,
    scale: str,
    output: Path,
) -> None:
    """Ask every item of the benchmarks with its image and write each encoder's share of the attention, in percent.

    A share is over the queries that see some of the picture, all heads and all aggregator layers alike, those inside
    the LLM included; its error is over items.

    Raises:
        ParamsError: a benchmark has no prompt at this scale, or the run's connector has no aggregators.
        ArtifactError: the model, a backbone, a benchmark or a picture is missing or broken.
    """
    import torch

    from cambrian.evaluation.answering import open_own_model
    from cambrian.models.config import SVAConfig
    from cambrian.models.weights import read_stored

    chosen = {name: look_up(prompts, name, where="attention.benchmarks") for name in config.benchmarks}
    read_manifest(benchmarks)
    stored = read_stored(model).config
    if not isinstance(stored.connector, SVAConfig):
        raise ParamsError(
            f"run {run} has a connector of kind {stored.connector.kind!r}, attention is measured of 'sva' alone: take "
            "the run out of `analysed` in params.yaml"
        )
    torch.set_num_threads(runtime.threads)
    answerer = open_own_model(model, backbones=backbones, device=runtime.device)
    found = {}
    for name, prompt in chosen.items():
        with logged_step(f"attention of {run} on {name}") as facts:
            items = read_items(benchmarks, name, prompt)
            layers = _ask(answerer, stored.connector, items, batch_size=config.batch_size)
            facts["items"] = len(items)
        found[name] = _describe(layers, stored.encoders)
    write_json(output, {"run": run, "scale": scale, "encoders": list(stored.encoders), "benchmarks": found})


def _ask(
    answerer: OwnAnswerer, connector: ConnectorConfig, items: Sequence[Item], *, batch_size: int
) -> dict[str, Float[Tensor, "items encoders"]]:
    """Every item's shares, by aggregator layer."""
    import torch

    from cambrian.evaluation.attention import record_shares

    ordered = sorted(((item.question, item.image) for item in items), key=answerer.length)
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    parts: dict[str, list[Tensor]] = {}
    for prompts in iter_progress(batches, total=len(batches), what=items[0].benchmark):
        try:
            batch = answerer.prepare(prompts)
        except RecordError as error:
            raise ArtifactError(
                f"a picture of {items[0].benchmark}: {error}; run `dvc repro build_benchmarks`"
            ) from error
        assert batch.images is not None
        with record_shares(answerer.model, connector, batch.images.sizes) as layers:
            answerer.generate(batch, max_new_tokens=1)
        for layer in layers:
            parts.setdefault(layer.name, []).append(layer.means())
    return {name: torch.cat(shares) for name, shares in parts.items()}


def _describe(layers: Mapping[str, Float[Tensor, "items encoders"]], encoders: Sequence[str]) -> dict[str, Any]:
    import torch

    shares = 100 * torch.stack(list(layers.values())).double().mean(dim=0)
    errors = shares.std(dim=0, correction=0) / math.sqrt(len(shares))
    return {
        "items": len(shares),
        "shares": _by_encoder(shares.mean(dim=0), encoders),
        "standard_error": _by_encoder(errors, encoders),
        "layers": [
            {"name": name, "shares": _by_encoder(100 * values.double().mean(dim=0), encoders)}
            for name, values in layers.items()
        ],
    }


def _by_encoder(values: Float[Tensor, " encoders"], encoders: Sequence[str]) -> dict[str, float]:
    return dict(zip(encoders, values.tolist(), strict=True))
