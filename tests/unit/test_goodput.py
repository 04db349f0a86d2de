"""Every moment of a run has one place, whatever breaks, and whoever is away."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import generate_latest

from pretrain_llm.contract.status import FirstStep, Incident, StatusDocument
from pretrain_operator import conditions, goodput
from pretrain_operator.api.status import Activity, TimeAccount, TrainingStatus
from pretrain_operator.cache import RunKey
from pretrain_operator.metrics import Metrics
from pretrain_operator.observed import ObjectKey
from pretrain_operator.times import epoch_seconds, micro_timestamp

from .scenarios import settle, started, step, training_run, until
from .simulation import Simulation
from .simulation_faults import kill_worker
from .test_plan_walk import AWAY, MAX_TICKS, scripted, walked_without
from .world import START, Operator, changed

DOCS = Path(__file__).parents[2] / "docs" / "goodput.md"


def training_of(simulation: Simulation) -> TrainingStatus:
    training = simulation.world.status.training
    assert training is not None
    return training


def account_of(simulation: Simulation) -> TimeAccount:
    account = training_of(simulation).account
    assert account is not None
    return account


def booked(training: TrainingStatus) -> float:
    return training.productive_seconds + sum(training.badput_seconds.values())


def passed(simulation: Simulation) -> float:
    return epoch_seconds(account_of(simulation).until) - START


def stepping() -> Simulation:
    """At step 30, 34.8 s after admission, all booked."""
    simulation = training_run(training__steps=10_000)
    simulation.world.now += 10.0
    settle(simulation)
    return simulation


def seen(
    simulation: Simulation, seconds: float, change: Callable[[StatusDocument], StatusDocument]
) -> dict[str, float]:
    """What is booked, by cause, once `seconds` have passed and the coordinator says more."""
    before = training_of(simulation)
    document = simulation.world.document
    assert document is not None
    simulation.world.now += seconds
    told = change(replace(document, time=simulation.world.now))
    simulation.world.document = told
    settle(simulation)
    after = training_of(simulation)
    assert booked(after) == pytest.approx(passed(simulation), abs=1e-6)
    causes = {
        cause: round(after.badput_seconds.get(cause, 0.0) - before.badput_seconds.get(cause, 0), 3)
        for cause in goodput.CAUSES
    }
    causes["Productive"] = round(after.productive_seconds - before.productive_seconds, 3)
    return {cause: seconds for cause, seconds in causes.items() if seconds}


def at_step(document: StatusDocument, number: int, time: float) -> StatusDocument:
    assert document.progress is not None
    return replace(document, progress=replace(document.progress, step=number, time=time))


def incident(
    document: StatusDocument, time: float, last: int, resumed: int | None
) -> StatusDocument:
    """One that took 1 s to be found, 2 s to a round, 3 s to restore, 4 s to step."""
    phases = (1.0, 2.0, 3.0, 4.0) if resumed is not None else (1.0, None, None, None)
    detect, reschedule, restore, first_step = phases
    added = Incident(
        round=document.round,
        time=time,
        evidence="WorkerExit",
        last_step=last,
        detect_seconds=detect,
        reschedule_seconds=reschedule,
        restore_seconds=restore,
        first_step_seconds=first_step,
        resumed_step=resumed,
    )
    known = (*document.incidents, added)
    return replace(document, incidents=known, round=document.round + 1)


# The whole of a run


def test_every_moment_of_a_walk_is_booked_once():
    simulation = scripted()
    for _ in range(MAX_TICKS):
        Operator(simulation.world).settle()
        training = training_of(simulation)
        assert booked(training) == pytest.approx(passed(simulation), abs=1e-6)
        simulation.tick()
    trained = simulation.world.status.artifacts[1]
    assert trained.stage == "Training"
    assert booked(training) == pytest.approx(epoch_seconds(trained.time) - START, abs=1e-6)
    assert training.badput_seconds == {
        "Preparing": 10.0,
        "Starting": 6.5,
        "Recovery": 13.0,
        "CheckpointStall": 0.8,
    }
    assert training.productive_seconds == 34.7
    assert training.goodput == 0.5338


@pytest.mark.parametrize("away", AWAY)
def test_run_whose_operator_is_away_meanwhile_has_every_moment_booked_once(away: range):
    simulation = walked_without(away)
    assert account_of(simulation).activity == "Finished"
    trained = epoch_seconds(simulation.world.status.artifacts[1].time)
    assert booked(training_of(simulation)) == pytest.approx(trained - START, abs=1e-6)


# One look at a coordinator


def test_steps_between_two_looks_are_productive_up_to_the_last():
    simulation = stepping()
    now = simulation.world.now
    told = seen(simulation, 20.0, lambda document: at_step(document, 70, now + 19.0))
    since = now + 19.0 - epoch_seconds(micro_timestamp(START + 30.0))
    assert told == {"Productive": since}


@pytest.mark.parametrize(
    ("last", "resumed", "newest", "expected"),
    [
        # 20 s of steps, 10 s of recovery, 20 s of steps; the first step again is recovery.
        (50, 50, 71, {"Recovery": 10.0, "Productive": 40.0}),
        (50, 39, 60, {"Recovery": 10.0, "LostSteps": 10.0, "Productive": 30.0}),
        (50, 20, 41, {"Recovery": 10.0, "LostSteps": 20.0, "Productive": 20.0}),
    ],
)
def test_recovery_between_two_looks_is_booked_by_its_own_times(last, resumed, newest, expected):
    simulation = stepping()
    start = epoch_seconds(account_of(simulation).until)
    simulation.world.now = start

    def broken(document: StatusDocument) -> StatusDocument:
        told = incident(document, start + 20.0, last, resumed)
        return at_step(told, newest, start + 50.0)

    assert seen(simulation, 51.0, broken) == expected


def test_fault_found_late_is_booked_from_its_own_time():
    simulation = stepping()
    start = epoch_seconds(account_of(simulation).until)
    simulation.world.now = start + 30.0
    told = seen(simulation, 0.0, lambda document: incident(document, start + 10.0, 35, None))
    assert told == {"Productive": 10.0, "Recovery": 20.0}
    assert account_of(simulation).activity == "Recovery"


def test_two_recoveries_between_two_looks_are_booked_apart():
    simulation = stepping()
    start = epoch_seconds(account_of(simulation).until)
    simulation.world.now = start

    def broken(document: StatusDocument) -> StatusDocument:
        once = incident(document, start + 10.0, 40, 40)
        twice = incident(once, start + 30.0, 50, 41)
        return at_step(twice, 52, start + 50.0)

    # The steps after the second: 10 of them, 8 up to the highest.
    expected = {"Recovery": 20.0, "LostSteps": 8.0, "Productive": 22.0}
    assert seen(simulation, 51.0, broken) == expected


def test_stalls_are_taken_out_of_the_steps_once():
    simulation = stepping()
    start = epoch_seconds(account_of(simulation).until)
    simulation.world.now = start
    stalled = account_of(simulation).stall_seconds + 1.5

    def saved(document: StatusDocument) -> StatusDocument:
        now = simulation.world.now
        return replace(at_step(document, document.round + int(now), now), stall_seconds=stalled)

    assert seen(simulation, 20.0, saved) == {"CheckpointStall": 1.5, "Productive": 18.5}
    assert seen(simulation, 20.0, saved) == {"Productive": 20.0}


def test_coordinator_whose_clock_is_wrong_changes_nothing():
    simulation = stepping()
    start = epoch_seconds(account_of(simulation).until)
    simulation.world.now = start

    def broken(document: StatusDocument) -> StatusDocument:
        skewed = incident(document, start + 20.0 - 500.0, 50, 39)
        skewed = at_step(skewed, 60, start + 50.0 - 500.0)
        return replace(skewed, time=document.time - 500.0, started_at=document.started_at - 500.0)

    expected = {"Recovery": 10.0, "LostSteps": 10.0, "Productive": 30.0}
    assert seen(simulation, 51.0, broken) == expected


# Coordinators that go


def test_steps_made_while_the_coordinator_is_silent_are_booked_when_one_is_back():
    simulation = stepping()
    document = simulation.world.document
    assert document is not None
    start = epoch_seconds(account_of(simulation).until)
    simulation.world.document = None
    simulation.world.now = start + 60.0
    settle(simulation)
    assert epoch_seconds(account_of(simulation).until) == start
    back = replace(document, started_at=start + 60.0, first_step=None, stall_seconds=0.0)
    simulation.world.document = back
    told = seen(simulation, 10.0, lambda document: at_step(document, 90, start + 69.0))
    assert told == {"Productive": 69.0}


def test_coordinator_lost_with_its_round_makes_the_silence_a_recovery():
    simulation = stepping()
    start = epoch_seconds(account_of(simulation).until)
    simulation.world.now = start

    def new(document: StatusDocument) -> StatusDocument:
        fresh = replace(document, started_at=start + 20.0, round_formed_at=start + 25.0)
        fresh = replace(fresh, first_step=FirstStep(26, start + 30.0), stall_seconds=0.0)
        return at_step(fresh, 36, start + 40.0)

    expected = {"Recovery": 30.0, "LostSteps": 4.0, "Productive": 6.0}
    assert seen(simulation, 41.0, new) == expected


# Waiting


def test_suspension_is_booked_until_the_run_goes_on_and_then_its_start():
    simulation = stepping()
    before = training_of(simulation)
    simulation.world.edit(suspend=True)
    until(simulation, lambda: conditions.state(simulation.world.status) == conditions.SUSPENDED)
    simulation.tick()  # the coordinator goes
    simulation.world.now += 3600.0
    simulation.world.edit(suspend=False)
    settle(simulation)
    assert account_of(simulation).activity == "Starting"
    suspended = training_of(simulation).badput_seconds["Suspended"]
    assert 3600.0 <= suspended <= 3640.0
    reached = before.step
    until(simulation, lambda: step(simulation) > reached)
    after = training_of(simulation)
    assert after.badput_seconds["Suspended"] == suspended
    assert after.badput_seconds["Starting"] > before.badput_seconds["Starting"]
    assert "Recovery" not in after.badput_seconds
    assert booked(after) == pytest.approx(passed(simulation), abs=1e-6)


UNSCHEDULABLE = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
}


def test_start_without_a_node_is_queued_until_there_is_one():
    simulation = started()
    until(simulation, lambda: account_of(simulation).activity == "Starting")
    simulation.tick()
    world = simulation.world
    name = next(
        pod["metadata"]["name"]
        for pod in world.of_kind("Pod")
        if "train" in pod["metadata"]["name"]
    )
    key = ObjectKey("Pod", name)
    placed, document = world.objects[key], world.document
    world.objects[key] = changed(placed, spec={"nodeName": None}, status=UNSCHEDULABLE)
    assert document is not None
    world.document = replace(document, broken=True, round=0, round_formed_at=None)
    settle(simulation)
    assert account_of(simulation).activity == "Queued"
    world.now += 600.0
    settle(simulation)
    world.objects[key], world.document = placed, document
    settle(simulation)
    assert training_of(simulation).badput_seconds["Queued"] == 600.0
    assert account_of(simulation).activity == "Starting"


def test_stopped_run_is_booked_as_stopped_until_its_spec_is_changed():
    faults = {"recovery__maxInfrastructureFaults": 0, "recovery__maxApplicationFaults": 0}
    simulation = training_run(**faults)
    kill_worker(simulation)
    settle(simulation)
    assert conditions.is_stopped(simulation.world.status)
    assert account_of(simulation).activity == "Stopped"
    stopped_at = epoch_seconds(account_of(simulation).until)
    simulation.world.now += 900.0
    settle(simulation)
    simulation.world.edit(recovery={"maxInfrastructureFaults": 5, "maxApplicationFaults": 5})
    settle(simulation)
    waited = simulation.world.now - stopped_at
    assert training_of(simulation).badput_seconds["Stopped"] == pytest.approx(waited, abs=1e-6)
    assert account_of(simulation).activity == "Starting"


@pytest.mark.parametrize("activity", ["Preparing", "Queued", "Suspended", "Stopped"])
def test_waiting_is_shown_up_to_now_without_a_write(activity):
    account = TimeAccount(activity=activity, until=micro_timestamp(START))
    training = TrainingStatus(productive_seconds=30.0, account=account)
    simulation = started()
    status = simulation.world.status.model_copy(update={"training": training})
    shown = goodput.current(status, START + 10.0)
    assert shown is not None
    assert (shown.badput_seconds, shown.goodput) == ({activity: 10.0}, 0.75)


@pytest.mark.parametrize("activity", ["Starting", "Stepping", "Recovery", "Finished"])
def test_what_may_have_ended_is_not_shown_before_it_is_known(activity):
    account = TimeAccount(activity=activity, until=micro_timestamp(START))
    training = TrainingStatus(productive_seconds=30.0, account=account)
    status = started().world.status.model_copy(update={"training": training})
    assert goodput.current(status, START + 10.0) == training


def test_waiting_alone_costs_no_write_and_no_pass():
    simulation = started()
    settle(simulation)
    before = simulation.world.status
    simulation.world.now += 3600.0
    decided = Operator(simulation.world).plan()
    assert decided.status == before
    assert decided.requeue_after_seconds is None


# What is told


def test_metrics_have_every_cause_of_every_run():
    simulation = stepping()
    metrics = Metrics()
    metrics.show(RunKey("llm", "demo"), simulation.world.status)
    text = generate_latest(metrics.registry).decode()
    labels = 'namespace="llm",run="demo"'
    training = training_of(simulation)
    assert f"pretrain_run_goodput_ratio{{{labels}}} {training.goodput}" in text
    assert f"pretrain_run_productive_seconds_total{{{labels}}}" in text
    for cause in goodput.CAUSES:
        pattern = rf'pretrain_run_badput_seconds_total{{cause="{cause}",{labels}}} ([\d.]+)'
        found = re.search(pattern, text)
        assert found, cause
        assert float(found[1]) == training.badput_seconds.get(cause, 0.0)


def test_causes_are_those_of_the_docs():
    rows = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(goodput.CAUSES)
    assert set(get_args(Activity)) - set(goodput.CAUSES) == {"Stepping", "Finished"}
