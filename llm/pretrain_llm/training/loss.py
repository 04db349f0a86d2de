"""Cross entropy, and a z-loss that keeps the logits' normaliser near 1.

Source: Chowdhery et al. 2022 (PaLM), section 5: weight x (log Z)^2 a token, beside the cross
entropy. Under tensor parallelism each rank has a part of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchtitan.components.loss import IGNORE_INDEX, CrossEntropyLoss
from torchtitan.distributed.spmd_types import current_spmd_mesh, spmd_mesh_size


class ZLoss(CrossEntropyLoss):
    @dataclass(kw_only=True, slots=True)
    class Config(CrossEntropyLoss.Config):
        weight: float

    def __init__(self, config: Config, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        cross_entropy, weight = self.fn, config.weight

        def both(pred: Tensor, labels: Tensor, **options: Any) -> Tensor:
            squares = SquaredLogNormaliser.apply(pred.flatten(0, 1).float(), _vocabulary_group())
            # Not by indexing, which would have the host wait for the device.
            counted = squares.where(labels.flatten() != IGNORE_INDEX, 0).sum()
            return cross_entropy(pred, labels, **options) + weight * counted

        self.fn = both


def _vocabulary_group() -> dist.ProcessGroup | None:
    if spmd_mesh_size("tp") == 1:
        return None
    mesh = current_spmd_mesh()
    assert mesh is not None
    return mesh.get_group("tp")


class SquaredLogNormaliser(torch.autograd.Function):
    """(log Z)^2 of each row of logits, (tokens, vocabulary or this rank's part of it) float32."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        largest = logits.amax(dim=-1)
        if group is not None:
            dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
        total = (logits - largest.unsqueeze(-1)).exp().sum(dim=-1)
        if group is not None:
            dist.all_reduce(total, group=group)
        log_normaliser = largest + total.log()
        ctx.save_for_backward(logits, log_normaliser)
        return log_normaliser.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        logits, log_normaliser = ctx.saved_tensors
        probabilities = (logits - log_normaliser.unsqueeze(-1)).exp_()
        return probabilities.mul_((2 * gradient * log_normaliser).unsqueeze(-1)), None
