"""No rotation (NoPE), where torchtitan's attention wants one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchtitan.models.common import ComplexRoPE, RoPE


class NoPE(ComplexRoPE):
    """Stands where attention has its rotation, has no table, and rotates nothing."""

    @dataclass(kw_only=True, slots=True)
    class Config(ComplexRoPE.Config):
        pass

    def __init__(self, config: Config) -> None:
        super(RoPE, self).__init__()
        self.config = config

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        positions: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        return query, key

    def _init_self_buffers(self, *, buffer_device: torch.device | None = None) -> None: ...
