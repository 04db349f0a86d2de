"""Pure: what is to be measured, in which order, and what has been."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

OURS, RECREATE, ELASTIC = "ours", "recreate", "elastic"
SYSTEMS = (OURS, RECREATE, ELASTIC)

KILL, HANG, POD_DELETE = "worker-kill", "hang", "pod-delete"
POWER_OFF, POWER_OFF_NO_SPARE = "power-off", "power-off-no-spare"
POWER_OFF_PATIENT = "power-off-patient"  # the peers' workers wait for the lost one
FAULTS = (KILL, HANG, POD_DELETE, POWER_OFF, POWER_OFF_NO_SPARE, POWER_OFF_PATIENT)
PATIENCE_SECONDS = 600  # torch's own for NCCL (default_pg_nccl_timeout); torchtitan's is 100


@dataclass(frozen=True)
class Setup:
    """How a system is started."""

    spares: int = 0
    patience_seconds: int | None = None  # of the peers' collectives; None: torchtitan's own


@dataclass(frozen=True)
class Trial:
    """One fault in one system."""

    fault: str
    system: str
    repetition: int

    @property
    def setup(self) -> Setup:
        if self.system == OURS:
            return Setup(spares=int(self.fault != POWER_OFF_NO_SPARE))
        is_patient = self.fault == POWER_OFF_PATIENT
        return Setup(patience_seconds=PATIENCE_SECONDS if is_patient else None)

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
    setup: Setup
    trials: tuple[Trial, ...]


def wanted(
    faults: Collection[str], systems: Collection[str], repetitions: int
) -> tuple[Trial, ...]:
    """All trials, but for those that another one stands for."""
    return tuple(
        Trial(fault, system, repetition)
        for repetition in range(repetitions)
        for system in SYSTEMS
        for fault in FAULTS
        if fault in faults and system in systems and _is_distinct(fault, system, faults)
    )


def measured_fault(fault: str, system: str) -> str:
    """The fault that stands for this one in that system's trials.

    The peers know no spares; our workers wait for no collective, however patient it is.
    """
    same_as_power_off = POWER_OFF_PATIENT if system == OURS else POWER_OFF_NO_SPARE
    return POWER_OFF if fault == same_as_power_off else fault


def _is_distinct(fault: str, system: str, faults: Collection[str]) -> bool:
    """torchrun elastic waits for the lost pod's successor, however patient its workers are."""
    if (fault, system) == (POWER_OFF_PATIENT, ELASTIC):
        return False
    return measured_fault(fault, system) == fault or POWER_OFF not in faults


def turns(trials: Sequence[Trial], done: Collection[Trial]) -> tuple[Turn, ...]:
    """What is left, interleaved: each repetition goes through all systems."""
    found: dict[tuple[int, str, Setup], list[Trial]] = {}
    for trial in trials:
        if trial not in done:
            found.setdefault((trial.repetition, trial.system, trial.setup), []).append(trial)
    return tuple(
        Turn(system, setup, tuple(members)) for (_, system, setup), members in found.items()
    )


def offset_steps(trial: Trial, interval: int) -> float:
    """How long after a checkpoint's step the fault comes: uniform, and equal in all systems."""
    kind = POWER_OFF if trial.fault.startswith(POWER_OFF) else trial.fault
    seed = f"{kind}/{trial.repetition}"
    return random.Random(seed).uniform(0, interval)
