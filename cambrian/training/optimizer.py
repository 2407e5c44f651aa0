"""Which optimizer and which learning rate each parameter gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cambrian.interfaces import ParamsError
from cambrian.muon import Muon
from cambrian.training.config import MuonAdamWConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from cambrian.training.config import AdamWConfig, LearningRates

_OUTPUT_HEAD = "lm_head"
"""The module whose matrix gives the vocabulary's logits, by transformers' name."""


def build_optimizers(
    model: nn.Module,
    parts: Mapping[str, Sequence[nn.Parameter]],
    config: AdamWConfig,
    rates: LearningRates,
    *,
    aggregators: Collection[nn.Parameter],
) -> list[torch.optim.Optimizer]:
    """Make the optimizers of everything in the model that requires a gradient.

    Groups carry `name` (part/kind) and `highest_rate`, which the schedule multiplies. Kinds: `hidden`, matrices of
    linear layers; `weights`, other weights, which decay; `plain`, embeddings, tables, norms and biases, which do not.
    Of the connector's parameters, those in `aggregators` are a part of their own where their rate is another one.

    Raises:
        ParamsError: a part is trained, and its learning rate is 0 or there is none of its name.
    """
    kinds = _kinds_of(model)
    muon_groups, adamw_groups = [], []
    for part, rate, trained in _iter_rates(parts, rates, set(aggregators)):
        for kind in ("hidden", "weights", "plain"):
            members = [parameter for parameter in trained if kinds[parameter] == kind]
            if not members:
                continue
            group: dict[str, Any] = {"params": members, "name": f"{part}/{kind}", "highest_rate": rate}
            group["weight_decay"] = 0.0 if kind == "plain" else config.weight_decay
            if not isinstance(config, MuonAdamWConfig):
                adamw_groups.append(group)
            elif kind == "hidden":
                muon_groups.append(group)
            else:
                adamw_groups.append({**group, "highest_rate": rate * config.adamw_ratio})
    optimizers: list[torch.optim.Optimizer] = []
    if muon_groups and isinstance(config, MuonAdamWConfig):
        optimizers.append(Muon(muon_groups, momentum=config.momentum, matrix_scale=config.matrix_scale))
    if adamw_groups:
        betas = (config.beta1, config.beta2)
        optimizers.append(torch.optim.AdamW(adamw_groups, betas=betas, eps=config.epsilon, foreach=True))
    return optimizers


def _iter_rates(
    parts: Mapping[str, Sequence[nn.Parameter]], rates: LearningRates, aggregators: set[nn.Parameter]
) -> Iterator[tuple[str, float, list[nn.Parameter]]]:
    """Every part that learns, its highest rate and its parameters.

    The connector is cut in two only where its aggregators' rate differs: one group of both is one batch of matrices.
    """
    known: dict[str, float] = rates.model_dump()
    for part, parameters in parts.items():
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if not trained:
            continue
        if part not in known:
            raise ParamsError(f"no learning rate for the part {part!r}, learning_rates has {', '.join(known)}: add one")
        special = aggregators.intersection(trained)
        named = [(part, [parameter for parameter in trained if parameter not in special])]
        named.append(("aggregators", [parameter for parameter in trained if parameter in special]))
        for name, members in named:
            if members and known[name] == 0:
                raise ParamsError(f"learning_rates.{name} is 0 and the {name} is to be trained: give it a rate above 0")
        if known[part] == known["aggregators"]:
            named = [(part, trained)]
        for name, members in named:
            if members:
                yield name, known[name], members


def _kinds_of(model: nn.Module) -> dict[nn.Parameter, str]:
    kinds: dict[nn.Parameter, str] = {}
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    for module_name, module in model.named_modules():
        is_head = module_name.rsplit(".", 1)[-1] == _OUTPUT_HEAD
        for parameter_name, parameter in module.named_parameters(recurse=False):
            if parameter in embeddings or parameter_name != "weight" or parameter.ndim < 2:
                kinds[parameter] = "plain"
            else:
                kinds[parameter] = "hidden" if isinstance(module, nn.Linear) and not is_head else "weights"
    return kinds
