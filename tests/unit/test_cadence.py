"""What the coordinator makes of saves and interruptions: their cost, and the interval."""

from __future__ import annotations

import pytest

from pretrain_llm.contract.config import CheckpointConfig
from pretrain_llm.contract.intervals import SaveCost
from pretrain_llm.contract.reports import SavedReport, StepReport
from pretrain_llm.coordinator import cadence
from pretrain_llm.coordinator.cadence import Rhythm

AUTO = CheckpointConfig(keep_latest=2, min_interval=5, max_interval=100_000)
STALL_SECONDS = 0.5


def stepped(rhythm: Rhythm, *steps: int, slow: dict[int, float] | None = None) -> Rhythm:
    for number in steps:
        seconds = (slow or {}).get(number, 1.0)
        rhythm = cadence.stepped(rhythm, StepReport(number, 1.0, number, seconds, 1.0, 0.0))
    return rhythm


def saved(rhythm: Rhythm, step: int, seconds: float = 3.0) -> Rhythm:
    report = SavedReport(step, f"step-{step}", 1, 0.0, STALL_SECONDS, seconds)
    return cadence.saved(rhythm, report)


def started() -> Rhythm:
    return stepped(cadence.initial(AUTO, devices=8), *range(1, 21))


def test_save_is_measured_once_its_next_steps_have_come() -> None:
    rhythm = saved(started(), 20)
    slow = {21: 1.0 + STALL_SECONDS, 22: 1.25, 25: 1.25}
    almost = stepped(rhythm, *range(21, 30), slow=slow)
    assert almost.cadence.costs == ()
    assert almost.cadence.interval_steps == 5
    measured = stepped(almost, 30)
    assert measured.cadence.costs == (SaveCost(0.5, dip_seconds=0.5, save_seconds=3.0),)
    assert measured.cadence.interval_steps > 1000
    assert measured.cadence.stall_share == 0.5 / measured.cadence.interval_steps


def test_save_that_is_complete_late_is_measured_the_same() -> None:
    slow = {21: 1.0 + STALL_SECONDS, 24: 1.5}
    rhythm = saved(stepped(started(), *range(21, 90), slow=slow), 20, seconds=60.0)
    assert rhythm.cadence.costs == (SaveCost(0.5, dip_seconds=0.5, save_seconds=60.0),)


def test_save_soon_after_another_ends_the_dip_of_the_first() -> None:
    slow = {21: 1.5, 24: 1.5}
    rhythm = stepped(started(), *range(21, 24), slow=slow)
    rhythm = saved(saved(rhythm, 20), 23)
    assert rhythm.cadence.costs == (SaveCost(0.5, dip_seconds=0.0, save_seconds=3.0),)
    rhythm = stepped(rhythm, *range(24, 34), slow=slow)
    assert len(rhythm.cadence.costs) == 2


@pytest.mark.parametrize("gone", [21, 25, 30])
def test_save_with_a_step_that_was_not_heard_of_is_not_measured(gone: int) -> None:
    rhythm = saved(started(), 20)
    rhythm = stepped(rhythm, *(step for step in range(21, 32) if step != gone))
    assert rhythm.cadence.costs == ()
    assert rhythm.unmeasured == ()


def test_save_of_a_broken_round_is_not_measured() -> None:
    rhythm = cadence.restarted(saved(started(), 20))
    assert stepped(rhythm, *range(21, 40)).cadence.costs == ()


def test_dip_of_a_save_is_the_median_and_never_a_gain() -> None:
    rhythm = started()
    for step, first in ((20, 1.0), (30, 9.0), (40, 1.1)):
        rhythm = saved(rhythm, step)
        rhythm = stepped(rhythm, *range(step + 1, step + 11), slow={step + 1: first})
    assert [round(cost.dip_seconds, 6) for cost in rhythm.cadence.costs] == [-0.5, 7.5, -0.4]
    assert rhythm.cadence.cost == SaveCost(0.5, 0.0, 3.0)


def test_interruption_shortens_the_interval_and_a_new_coordinator_goes_on_with_it() -> None:
    measured = stepped(saved(started(), 20), *range(21, 31))
    after = cadence.interrupted(measured)
    assert after.cadence.interruptions == 1
    assert after.cadence.mtbf_seconds < measured.cadence.mtbf_seconds / 10
    assert after.cadence.interval_steps < measured.cadence.interval_steps / 2
    new = cadence.reminded(cadence.initial(AUTO, devices=8), after.cadence)
    assert new.cadence == after.cadence
    assert cadence.reminded(stepped(new, 31), after.cadence) == stepped(new, 31)  # told again
