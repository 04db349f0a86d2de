"""What saves take of training, how often the run is interrupted, and so how often it saves. Pure.

    step     N         N+1    …    N+10
             |--stall--|---- dip ----|     the dip: those steps, less the stall and their usual time

Decided anew after each save that is measured and each interruption, so that the interval holds for
a while. A save is measured only where all of its next steps were heard of.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace

from ..contract.config import CheckpointConfig
from ..contract.intervals import (
    Cadence,
    SaveCost,
    device_hours_per_interruption,
    interval_steps,
)
from ..contract.reports import SavedReport, StepReport

DIP_STEPS = 10
KEPT_COSTS = 5
KEPT_STEPS = 1000  # a save may take many steps to be complete
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Rhythm:
    """Of one attempt, as this coordinator has heard of it."""

    policy: CheckpointConfig
    devices: int
    cadence: Cadence = field(default_factory=Cadence)
    steps: tuple[tuple[int, float], ...] = ()  # number and seconds, of the round
    unmeasured: tuple[SavedReport, ...] = ()  # saves of the round whose next steps are to come


def initial(policy: CheckpointConfig, devices: int) -> Rhythm:
    return _decided(Rhythm(policy, devices))


def stepped(rhythm: Rhythm, step: StepReport) -> Rhythm:
    steps = (*rhythm.steps, (step.step, step.seconds))[-KEPT_STEPS:]
    seconds = rhythm.cadence.stepped_seconds + step.seconds
    cadence = replace(rhythm.cadence, stepped_seconds=seconds)
    return _measured(replace(rhythm, steps=steps, cadence=cadence))


def saved(rhythm: Rhythm, report: SavedReport) -> Rhythm:
    return _measured(replace(rhythm, unmeasured=(*rhythm.unmeasured, report)))


def restarted(rhythm: Rhythm) -> Rhythm:
    """A round begins: its first step has nothing to do with the last ones."""
    return replace(rhythm, steps=(), unmeasured=())


def interrupted(rhythm: Rhythm) -> Rhythm:
    count = rhythm.cadence.interruptions + 1
    return _decided(replace(rhythm, cadence=replace(rhythm.cadence, interruptions=count)))


def reminded(rhythm: Rhythm, carried: Cadence) -> Rhythm:
    """With what an agent remembers from the coordinator before this one."""
    if carried.stepped_seconds <= rhythm.cadence.stepped_seconds:
        return rhythm
    return _decided(replace(rhythm, cadence=carried))


def _measured(rhythm: Rhythm) -> Rhythm:
    """With the cost of each save whose next steps, up to the next save, have come."""
    newest = rhythm.steps[-1][0] if rhythm.steps else 0
    costs, left = rhythm.cadence.costs, rhythm.unmeasured
    while left:
        until = min([left[0].step + DIP_STEPS, *(later.step for later in left[1:])])
        if newest < until:
            break
        cost = _cost(rhythm.steps, left[0], until)
        costs, left = (*costs, *([cost] if cost else []))[-KEPT_COSTS:], left[1:]
    after = replace(rhythm, unmeasured=left)
    if costs == rhythm.cadence.costs:
        return after
    return _decided(replace(after, cadence=replace(rhythm.cadence, costs=costs)))


def _cost(steps: tuple[tuple[int, float], ...], report: SavedReport, until: int) -> SaveCost | None:
    after = [seconds for step, seconds in steps if report.step < step <= until]
    if not after or len(after) < until - report.step:
        return None
    usual_seconds = len(after) * statistics.median(seconds for _, seconds in steps)
    return SaveCost(
        stall_seconds=report.stall_seconds,
        dip_seconds=sum(after) - report.stall_seconds - usual_seconds,
        save_seconds=report.seconds,
    )


def _decided(rhythm: Rhythm) -> Rhythm:
    known = rhythm.cadence
    step_seconds = known.step_seconds
    if rhythm.steps:
        step_seconds = statistics.median(seconds for _, seconds in rhythm.steps)
    device_hours = rhythm.devices * known.stepped_seconds / _SECONDS_PER_HOUR
    hours = device_hours_per_interruption(known.interruptions, device_hours) / rhythm.devices
    mtbf_seconds = hours * _SECONDS_PER_HOUR
    cadence = replace(
        known,
        interval_steps=interval_steps(rhythm.policy, known.cost, step_seconds, mtbf_seconds),
        step_seconds=step_seconds,
        mtbf_seconds=mtbf_seconds,
    )
    return replace(rhythm, cadence=cadence)
