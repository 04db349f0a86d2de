"""What each phase takes: arguments of the simulation, each with its source. Pure.

None of the defaults was measured on a GPU by this project: they are published by others, measured
on CPU by this project's tests, or plainly assumed; the source says which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from pretrain_llm.contract.intervals import daly_interval_seconds


@dataclass(frozen=True)
class Durations:
    """Seconds, but for checkpoint_steps and memory_steps. Raises ValueError for what cannot be."""

    step_seconds: float
    checkpoint_steps: int | None = None  # between two saves; None: Daly's, no shorter than a save
    stall_seconds: float = 1.5
    save_seconds: float = 216.0
    start_seconds: float = 300.0
    exit_detect_seconds: float = 0.5
    watchdog_seconds: float = 600.0
    stop_seconds: float = 5.0
    warm_start_seconds: float = 0.5
    communicator_seconds: float = 5.0
    load_seconds: float = 169.0
    first_step_extra_seconds: float = 12.7
    fails_again_seconds: float = 10.0
    health_seconds: float = 16.75
    node_not_ready_seconds: float = 50.0
    replacement_seconds: float = 120.0
    human_seconds: float = 1800.0
    memory_steps: int | None = None  # between two saves in memory; None: none are made
    memory_stall_seconds: float = 1.0
    memory_copy_seconds: float = 30.0
    memory_load_seconds: float = 5.0
    memory_fetch_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in names():
            value = getattr(self, name)
            if value is None:
                continue
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} {value}: give a finite number, 0 or more")
        if not self.step_seconds > 0:
            raise ValueError(f"step_seconds {self.step_seconds}: give a positive number")
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value}: give at least 1")

    @property
    def restore_seconds(self) -> float:
        """From a named round to workers that are ready to step, from the volume."""
        return self.warm_start_seconds + self.communicator_seconds + self.load_seconds

    def memory_restore_seconds(self, *, fetched: bool) -> float:
        """The same from memory; `fetched`: a node gets its shards from the one that has them."""
        fetch_seconds = self.memory_fetch_seconds if fetched else 0.0
        started = self.warm_start_seconds + self.communicator_seconds
        return started + fetch_seconds + self.memory_load_seconds

    @property
    def memory_interval_steps(self) -> int | None:
        """Between two saves in memory that are made: those before the last is copied are not."""
        if self.memory_steps is None:
            return None
        apart_seconds = self.memory_steps * self.step_seconds
        return self.memory_steps * max(1, math.ceil(self.memory_copy_seconds / apart_seconds))

    def interval_steps(self, mtbf_seconds: float) -> int:
        """Between two saves; where none are given, no fewer than are made while one is written."""
        if self.checkpoint_steps is not None:
            return self.checkpoint_steps
        daly = daly_interval_seconds(max(self.stall_seconds, 1e-3), mtbf_seconds)
        at_least = math.ceil(self.save_seconds / self.step_seconds)
        return max(1, round(daly / self.step_seconds), at_least)

    def used(self) -> tuple[str, ...]:
        """Names of those that matter: where nothing is saved in memory, what it takes does not."""
        is_idle = self.memory_steps is None
        return tuple(name for name in names() if not (is_idle and name in _OF_MEMORY))

    def scaled(self, name: str, factor: float) -> Durations:
        value = getattr(self, name)
        if name in COUNTS:
            return replace(self, **{name: max(1, round(value * factor))})
        return replace(self, **{name: value * factor})


# name -> (what it is, where the default comes from)
SOURCES: Mapping[str, tuple[str, str]] = {
    "step_seconds": ("one optimiser step", "the planner: 6ND at the assumed MFU"),
    "checkpoint_steps": (
        "between two saves",
        "Daly 2006, eq. 37, from stall and fault rate, but no shorter than a save takes",
    ),
    "stall_seconds": ("training stands still for a save", "the planner's estimate; not measured"),
    "save_seconds": (
        "a save, until its manifest is written",
        "VAST: median 3.6 min over 40 runs (published, other models)",
    ),
    "start_seconds": (
        "the first start of an attempt, all pods",
        "DLRover, thousand-GPU jobs at Ant: 5 min for all pods (published)",
    ),
    "exit_detect_seconds": (
        "a process ends -> the coordinator knows",
        "measured 0.00-0.03 s on CPU (docs/rounds.md); taken as one report interval",
    ),
    "watchdog_seconds": (
        "nothing moves -> a process ends, unless the coordinator ends the round first",
        "torch: default timeout of an NCCL collective, 10 min",
    ),
    "stop_seconds": (
        "all workers are stopped",
        "assumed; measured 0.01-0.03 s on CPU (docs/rounds.md)",
    ),
    "warm_start_seconds": (
        "a warm worker is up",
        "measured 0.47-0.50 s on CPU, small model loaded (docs/rounds.md)",
    ),
    "communicator_seconds": (
        "NCCL set-up",
        "MegaScale (arXiv:2402.15627): under 5 s at 2,048 GPUs, under 30 s over 10,000",
    ),
    "load_seconds": (
        "the checkpoint is loaded",
        "arXiv:2605.23066: DCP loads 405B in 169 s (published)",
    ),
    "first_step_extra_seconds": (
        "the first step beyond a usual one",
        "Google, 48 x TPU v5e-16: 12.7 s to the next step (published)",
    ),
    "fails_again_seconds": ("a restarted worker meets the broken device", "assumed"),
    "health_seconds": (
        "a device breaks -> its node is cordoned and drained",
        "NVSentinel v0.4.0: median 16.75 s from event to cordon (published); none runs here",
    ),
    "node_not_ready_seconds": (
        "a node is silent -> NotReady",
        "kube-controller-manager: default node-monitor-grace-period 50 s",
    ),
    "replacement_seconds": (
        "a pod is gone -> another one waits, warm",
        "DLRover: 2 min for one pod (published)",
    ),
    "human_seconds": ("a stopped run -> a person has changed it", "assumed"),
    "memory_steps": ("between two saves in memory", "none are made"),
    "memory_stall_seconds": ("training stands still for a save in memory", "assumed"),
    "memory_copy_seconds": ("a save in memory -> the next node has a copy", "assumed"),
    "memory_load_seconds": ("the node's shards are verified and loaded from memory", "assumed"),
    "memory_fetch_seconds": ("a lost node's shards come from the node that has them", "assumed"),
}
COUNTS = ("checkpoint_steps", "memory_steps")
_OF_MEMORY = (
    "memory_stall_seconds",
    "memory_copy_seconds",
    "memory_load_seconds",
    "memory_fetch_seconds",
)


def names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Durations))
