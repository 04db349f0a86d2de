"""Pure: what is to be measured, in which order, and what has been."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

OURS, RECREATE, ELASTIC = "ours", "recreate", "elastic"
SYSTEMS = (OURS, RECREATE, ELASTIC)

KILL, HANG, POD_DELETE = "worker-kill", "hang", "pod-delete"
POWER_OFF, POWER_OFF_NO_SPARE = "power-off", "power-off-no-spare"
FAULTS = (KILL, HANG, POD_DELETE, POWER_OFF, POWER_OFF_NO_SPARE)


@dataclass(frozen=True)
class Trial:
    """One fault in one system."""

    fault: str
    system: str
    repetition: int

    @property
    def spares(self) -> int:
        return int(self.system == OURS and self.fault != POWER_OFF_NO_SPARE)

    @property
    def victim(self) -> int:
        """Rank of the worker, or index of the pod: the last, the first, the last, …

        The peers' rendezvous is on their first pod, so that it matters which one is hit.
        """
        return 1 - self.repetition % 2


@dataclass(frozen=True)
class Turn:
    """What one system does while it runs: the others do not, since all share the cores."""

    system: str
    spares: int
    trials: tuple[Trial, ...]


def wanted(
    faults: Collection[str], systems: Collection[str], repetitions: int
) -> tuple[Trial, ...]:
    """All trials. The peers know no spares: for them the two ways of losing a node are one."""
    return tuple(
        Trial(fault, system, repetition)
        for repetition in range(repetitions)
        for system in SYSTEMS
        for fault in FAULTS
        if fault in faults and system in systems and _is_distinct(fault, system, faults)
    )


def measured_fault(fault: str, system: str) -> str:
    """The fault that stands for this one in that system's trials."""
    peers = system != OURS
    return POWER_OFF if peers and fault == POWER_OFF_NO_SPARE else fault


def _is_distinct(fault: str, system: str, faults: Collection[str]) -> bool:
    return measured_fault(fault, system) == fault or POWER_OFF not in faults


def turns(trials: Sequence[Trial], done: Collection[Trial]) -> tuple[Turn, ...]:
    """What is left, interleaved: each repetition goes through all systems."""
    found: dict[tuple[int, str, int], list[Trial]] = {}
    for trial in trials:
        if trial not in done:
            found.setdefault((trial.repetition, trial.system, trial.spares), []).append(trial)
    return tuple(
        Turn(system, spares, tuple(members)) for (_, system, spares), members in found.items()
    )


def offset_steps(trial: Trial, interval: int) -> float:
    """How long after a checkpoint's step the fault comes: uniform, and equal in all systems."""
    seed = f"{measured_fault(trial.fault, RECREATE)}/{trial.repetition}"
    return random.Random(seed).uniform(0, interval)
