"""Arithmetic of the parallel degrees: pure."""

from __future__ import annotations

from ..contract.config import ParallelismConfig


def data_parallel_ranks(parallelism: ParallelismConfig) -> int:
    """How many groups of ranks take samples of their own."""
    return parallelism.data_parallel_replicate * parallelism.data_parallel_shard


def world_size(parallelism: ParallelismConfig) -> int:
    return data_parallel_ranks(parallelism) * parallelism.model_ranks


def loss_rank(parallelism: ParallelismConfig) -> int:
    """The first rank of the last pipeline stage: no other stage has the loss."""
    stages = parallelism.pipeline_parallel
    return world_size(parallelism) // stages * (stages - 1)
