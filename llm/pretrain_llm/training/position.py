"""Which step comes next, as far as it can be told before anything is built.

A trainer is built for one segment of the curriculum, and a checkpoint is loaded into it. So the
ranks agree first on the step that they will most likely load. Where that one turns out damaged, and
the one before is of another segment, the trainer says so and the next round begins.
"""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from ..checkpoints import folders
from ..contract.config import RunConfig
from .memory import outdated, place

_KEY = "pretrain/finished-steps"


def finished_steps(run: RunConfig) -> int:
    """The same on every rank: rank 0's view. A run without a curriculum need not know: 0."""
    if not run.training.curriculum:
        return 0
    # Held until the process ends: outside an agent rank 0's store is the one that torch joins next.
    store, rank, _ = next(iter(dist.rendezvous("env://")))
    _stores.append(store)
    if rank == 0:
        store.set(_KEY, str(_newest(run)))
    return int(store.get(_KEY))


_stores: list[dist.Store] = []


def _newest(run: RunConfig) -> int:
    findings = folders.scan(Path(run.layout.checkpoints))
    saved = max((found.step for found in findings if found.manifest), default=0)
    offered = place().offered if run.checkpoint.memory else None
    if offered is None or outdated(offered, saved, run.checkpoint.keeps):
        return saved
    return offered.step
