"""Which optimiser, rate and weight decay each parameter has, as torchtitan's parameter groups.

Parameters are of a few kinds, told by torchtitan's names. Muon takes the matrices of the blocks;
AdamW everything else, or all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torchtitan.components.optimizer import (
    OptimizersContainer,
    ParamGroupConfig,
    default_adamw,
)
from torchtitan.models.common.attention import FusedQKVLinear

from ..contract.config import OptimizerConfig
from .muon import HeadGroups, Muon

MOMENTUM = 0.95  # Jordan et al. 2024 (Muon)
KINDS = {
    "matrices": r"\.(wqkv|w[qkvo]|w[123]|value_gate)\.weight$",
    "embeddings": r"(tok|pos)_embeddings\.weight$",  # tied: the output layer too
    "value embeddings": r"\.value_embeddings\.weight$",
    "output": r"^lm_head\.weight$",
    "norms": r"norm\.weight$",
    "biases": r"\.bias$",
    "residual scales": r"\.residual_scale$",
    "start scales": r"\.start_scale$",
    "smear and backout": r"^(smear_gate\.weight|smear_scale|backout_scale)$",
}
# Of the rates that the spec has for embeddings and for scalars. Source: nanochat 92d63d4,
# GPT.setup_optimizer, at the width and batch that its rates are for.
_VALUE_SHARE = 0.5
_SCALAR_SHARES = {"residual scales": 0.01, "start scales": 1.0, "smear and backout": 0.4}
_DECAY_AS = {"value embeddings": "embeddings", **dict.fromkeys(_SCALAR_SHARES, "scalars")}


class Optimizers(OptimizersContainer):
    """Knows Muon, leaves out groups of which a pipeline stage has no parameter, and steps only if
    the gate, where there is one, lets it."""

    @dataclass(kw_only=True, slots=True)
    class Config(OptimizersContainer.Config):
        pass

    def __init__(self, config: Config, *, model_parts: list[nn.Module]) -> None:
        arguments = {"Muon": {"fused": _fused(model_parts)}}
        self.gate: Callable[[], bool] | None = None
        super().__init__(
            replace(config, optimizer_factory_kwargs_by_name=arguments), model_parts=model_parts
        )

    @torch.no_grad()
    def forget(self) -> None:
        """As if no step had been made: moments of zero, and the count that AdamW corrects by.

        In place, so that whatever shows or saves the state sees that of a new optimiser.
        """
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if self.gate is None or self.gate():
            super().step(closure)

    @staticmethod
    def _resolve_optimizer_factory(name: str) -> Callable[..., Optimizer]:
        return Muon if name == "Muon" else OptimizersContainer._resolve_optimizer_factory(name)

    @staticmethod
    def _build_param_groups(
        model: nn.Module, param_group_configs: list[ParamGroupConfig], impl_kwargs: dict[str, Any]
    ) -> Any:
        names = [name for name, _ in model.named_parameters()]
        present = [
            group
            for group in param_group_configs
            if any(re.search(group.pattern, name) for name in names)
        ]
        return OptimizersContainer._build_param_groups(model, present, impl_kwargs)


def _fused(model_parts: list[nn.Module]) -> dict[nn.Parameter, HeadGroups]:
    return {
        module.wqkv.weight: HeadGroups(module.heads_per_kv, module.head_dim)
        for part in model_parts
        for module in part.modules()
        if isinstance(module, FusedQKVLinear)
    }


def optimizers(optimizer: OptimizerConfig) -> Optimizers.Config:
    groups = [_group(optimizer, kind) for kind in KINDS]
    if all(group.optimizer_kwargs == groups[0].optimizer_kwargs for group in groups):
        groups = default_adamw(**groups[0].optimizer_kwargs).param_groups
    return Optimizers.Config(param_groups=groups)


def _group(optimizer: OptimizerConfig, kind: str) -> ParamGroupConfig:
    shared = {
        "lr": learning_rate(optimizer, kind),
        "weight_decay": weight_decay(optimizer, kind),
    }
    if optimizer.name == "Muon" and kind == "matrices":
        momentum = MOMENTUM if optimizer.momentum is None else optimizer.momentum
        return ParamGroupConfig(
            pattern=KINDS[kind],
            optimizer_name="Muon",
            optimizer_kwargs={**shared, "momentum": momentum},
        )
    betas = (optimizer.beta1, optimizer.beta2)
    return ParamGroupConfig(
        pattern=KINDS[kind],
        optimizer_name="AdamW",
        optimizer_kwargs={**shared, "betas": betas, "eps": optimizer.epsilon},
    )


def learning_rate(optimizer: OptimizerConfig, kind: str) -> float:
    """Of a kind of parameter: its own, else AdamW's, else the one for all."""
    rates = (_own_rate(optimizer, kind), optimizer.adamw_learning_rate, optimizer.learning_rate)
    return next(rate for rate in rates if rate is not None)


def _own_rate(optimizer: OptimizerConfig, kind: str) -> float | None:
    stated = {
        "matrices": (optimizer.learning_rate, 1.0),
        "embeddings": (optimizer.embedding_learning_rate, 1.0),
        "value embeddings": (optimizer.embedding_learning_rate, _VALUE_SHARE),
        "output": (optimizer.output_learning_rate, 1.0),
        **{kind: (optimizer.scalar_learning_rate, share) for kind, share in _SCALAR_SHARES.items()},
    }
    rate, share = stated.get(kind, (None, 1.0))
    return None if rate is None else share * rate


def weight_decay(optimizer: OptimizerConfig, kind: str) -> float:
    if _DECAY_AS.get(kind, kind) in optimizer.no_weight_decay:
        return 0.0
    decay = optimizer.adamw_weight_decay
    return optimizer.weight_decay if kind == "matrices" or decay is None else decay
