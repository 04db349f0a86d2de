"""Figures are written seldom, everything else at once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pretrain_llm.contract.intervals import Cadence, SaveCost
from pretrain_llm.contract.reports import QuarantinedReport, SavedReport
from pretrain_llm.contract.status import Replay, StatusDocument
from pretrain_operator import progress
from pretrain_operator.api.status import (
    Artifact,
    Checkpoints,
    CheckpointStatus,
    QuarantineStatus,
    RunStatus,
    ServingStatus,
    TrainingStatus,
)
from pretrain_operator.story import story
from pretrain_operator.times import timestamp

from .scenarios import settle, training_run
from .world import START

INTERVAL_SECONDS = 10.0
OLD = RunStatus(
    training=TrainingStatus(step=10, updated_at=timestamp(START)),
    checkpoints=Checkpoints(latest=CheckpointStatus(step=10, path="/c", time="t")),
)
STEPPED = {"training": TrainingStatus(step=20, updated_at=timestamp(START))}
SAVED = {"checkpoints": Checkpoints(latest=CheckpointStatus(step=20, path="/d", time="u"))}


@pytest.mark.parametrize(
    ("change", "after_seconds", "is_written"),
    [
        ({}, 100.0, False),
        (STEPPED, 9.0, False),
        (STEPPED, 10.0, True),
        (SAVED, 9.0, False),
        (SAVED, 10.0, True),
        ({"attempt": 2}, 0.0, True),
        ({**STEPPED, "attempt": 2}, 0.0, True),
        ({"artifacts": (Artifact(stage="Data", path="/a", time="t"),)}, 0.0, True),
        ({"serving": ServingStatus(ready_replicas=1)}, 0.0, True),
        (
            {
                "checkpoints": Checkpoints(
                    latest=OLD.checkpoints.latest,
                    quarantined=(QuarantineStatus(step=5, path="/q", reason="r", time="t"),),
                )
            },
            0.0,
            True,
        ),
    ],
)
def test_status_is_written_when_it_is_worth_a_call(change, after_seconds, is_written):
    new = OLD.model_copy(update=change)
    now = START + after_seconds
    written = progress.throttled(OLD, new, now, INTERVAL_SECONDS)
    assert (written != OLD) == is_written
    if is_written:
        assert written.training is not None
        assert written.training.updated_at == timestamp(now)


def test_first_figures_of_a_run_are_written_at_once():
    new = RunStatus(training=TrainingStatus(step=1))
    assert progress.throttled(RunStatus(), new, START, INTERVAL_SECONDS) != RunStatus()


def test_infinite_losses_become_what_json_can_say():
    simulation = training_run()
    document = simulation.world.document
    assert document is not None
    assert document.progress is not None
    simulation.world.now += INTERVAL_SECONDS
    simulation.world.document = replace(
        document,
        progress=replace(document.progress, loss=math.nan, tokens_per_second=math.inf),
        replay=Replay(3, math.inf),
    )
    settle(simulation)
    training = simulation.world.status.training
    assert training is not None
    assert (training.loss, training.tokens_per_second) == (None, None)
    assert training.replayed_max_loss_difference == 1e300
    assert training.initial_loss == 10.0


def test_counts_do_not_fall_when_a_coordinator_has_forgotten_them():
    simulation = training_run()
    document = simulation.world.document
    assert document is not None
    for replay in (Replay(7, 0.5), Replay()):
        simulation.world.now += INTERVAL_SECONDS
        simulation.world.document = replace(document, replay=replay)
        settle(simulation)
    training = simulation.world.status.training
    assert training is not None
    assert (training.replayed_steps, training.replayed_max_loss_difference) == (7, 0.5)


def test_quarantined_checkpoint_is_kept_and_told_once():
    simulation = training_run()
    document = simulation.world.document
    assert document is not None
    report = QuarantinedReport(20, "data.bin has another checksum", "/q/step-20", START)
    simulation.world.document = replace(document, quarantined=(report,))
    settle(simulation)
    simulation.world.document = document
    settle(simulation)
    assert [entry.step for entry in simulation.world.status.checkpoints.quarantined] == [20]
    told = [e for e in simulation.world.events.values() if e.reason == "CheckpointQuarantined"]
    assert len(told) == 1
    assert "another checksum" in told[0].message


def test_training_run_costs_at_most_six_status_writes_a_minute():
    simulation = training_run(training__steps=10_000)
    writes = 0
    for _ in range(60):
        simulation.world.now += 1.0
        document = simulation.world.document
        assert document is not None
        assert document.progress is not None
        moved = replace(document.progress, step=document.progress.step + 1)
        simulation.world.document = replace(document, progress=moved)
        before = simulation.world.status
        settle(simulation)
        writes += simulation.world.status != before
    assert 5 <= writes <= 6


def test_quarantined_checkpoint_is_no_longer_the_latest():
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    latest = world.document.latest_checkpoint
    assert latest is not None
    bad = QuarantinedReport(latest.step, "a checksum", "/quarantine/step", latest.time + 1)
    world.document = replace(world.document, latest_checkpoint=None, quarantined=(bad,))
    world.now += 60
    settle(simulation)
    assert world.status.checkpoints.latest is None


def told_cadence(stall_seconds: float, step: int = 100) -> StatusDocument:
    """A save each 100 steps of 1 s."""
    return StatusDocument(
        run="demo",
        attempt=1,
        time=START,
        started_at=START,
        latest_checkpoint=SavedReport(step, f"step-{step}", 7, START + step, stall_seconds),
        cadence=Cadence(100, 1.0, 5000.4, 3, 400.0, (SaveCost(stall_seconds, 0.5, 9.0),)),
    )


def test_cadence_is_shown_with_what_it_was_decided_from():
    shown = progress._checkpoints(Checkpoints(), told_cadence(1.5)).cadence
    assert shown is not None
    assert shown.model_dump() == {
        "interval_steps": 100,
        "stall_seconds": 1.5,
        "dip_seconds": 0.5,
        "save_seconds": 9.0,
        "stall_share": 0.015,
        "mtbf_seconds": 5000,
        "interruptions": 3,
    }
    silent = replace(told_cadence(1.5), cadence=Cadence())
    assert progress._checkpoints(Checkpoints(cadence=shown), silent).cadence == shown


def test_saves_that_block_training_are_told_once_until_they_are_well_below_the_limit():
    checkpoints, seen = Checkpoints(), []
    for step, stall_seconds in enumerate((1.9, 2.5, 1.9, 2.5, 0.9, 1.9, 2.1), start=1):
        checkpoints = progress._checkpoints(checkpoints, told_cadence(stall_seconds, step))
        seen.append(checkpoints.blocking and checkpoints.blocking.step)
    assert seen == [None, 2, 2, 2, None, None, 7]
    (event,) = story(RunStatus(checkpoints=checkpoints))
    assert (event.type, event.reason) == ("Warning", "CheckpointsBlock")
    assert "2.1% of the time" in event.message
    assert "105 steps or more" in event.message
