"""How few nodes a run can go on with, and whether its model still fits there. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_llm.contract import meshes
from pretrain_llm.contract.config import RunConfig

from .assumptions import Assumptions
from .memory import MemoryPlan, memory_plan

SHOWN = 8  # sizes; a run of thousands of nodes has hundreds


@dataclass(frozen=True)
class SmallerRun:
    nodes: int
    config: RunConfig
    memory: MemoryPlan


def smaller_runs(config: RunConfig, assumptions: Assumptions) -> tuple[SmallerRun, ...]:
    """What the run may shrink to, largest first: the largest ones, and the smallest."""
    counts = meshes.fewer_nodes(config)
    shown = counts if len(counts) <= SHOWN else (*counts[: SHOWN - 1], counts[-1])
    configs = ((nodes, meshes.on_nodes(config, nodes)) for nodes in shown)
    return tuple(
        SmallerRun(nodes, smaller, memory_plan(smaller, assumptions))
        for nodes, smaller in configs
        if smaller is not None
    )
