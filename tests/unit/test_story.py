"""The Events of a run follow from its status alone."""

from __future__ import annotations

from pretrain_operator import conditions
from pretrain_operator.api.status import Artifact, RunStatus
from pretrain_operator.story import story
from pretrain_operator.times import epoch_seconds

from .scenarios import settle, started, until_state
from .simulation import cluster
from .simulation_faults import kill_worker
from .world import World


def test_story_of_a_whole_run_tells_stages_attempt_fault_recovery_and_end_in_order():
    simulation = cluster(World(started().world.body), script=[(20, kill_worker)])
    until_state(simulation, conditions.SERVING)
    told = sorted(simulation.world.events.values(), key=lambda event: event.time)
    reasons = [event.reason for event in told]
    expected = ["AttemptStarted", "WorkerKilled", "Recovered", "Serving"]
    expected += ["StageStarted"] * 5 + ["StageFinished"] * 4
    assert sorted(reasons) == sorted(expected)
    middle = [reason for reason in reasons if not reason.startswith("Stage")]
    assert middle == ["AttemptStarted", "WorkerKilled", "Recovered", "Serving"]
    fault = next(event for event in told if event.reason == "WorkerKilled")
    assert fault.type == "Warning"
    assert "SIGKILL" in fault.message


def test_story_of_one_status_is_the_same_twice_and_its_keys_differ():
    simulation = cluster(World(started().world.body), script=[(20, kill_worker)])
    until_state(simulation, conditions.SERVING)
    status = simulation.world.status
    told = story(status)
    assert told == story(status)
    assert len({event.key for event in told}) == len(told)


def test_problem_that_comes_back_is_told_again():
    simulation = started()
    claim = simulation.world.objects.copy()
    for _ in range(2):
        simulation.world.objects.clear()
        settle(simulation)
        simulation.world.now += 100
        simulation.world.objects.update(claim)
        settle(simulation)
        simulation.world.now += 100
    times = [
        event.time
        for event in simulation.world.events.values()
        if event.reason == conditions.STORAGE_NOT_FOUND
    ]
    assert len(times) == 2
    assert epoch_seconds(simulation.world.status.state_since or "") > max(times)


def test_export_of_an_older_checkpoint_is_told_as_a_warning():
    made = Artifact(stage="Export", path="/e", step=80, time="2026-01-01T00:00:00Z")
    whole = made.model_copy(update={"metrics": {"stepsMissing": 0.0}})
    behind = made.model_copy(update={"metrics": {"stepsMissing": 20.0}})
    (finished,) = story(RunStatus(artifacts=(whole,)))
    assert finished.reason == "StageFinished"
    warning = next(e for e in story(RunStatus(artifacts=(behind,))) if e.type == "Warning")
    assert warning.reason == "CheckpointQuarantined"
    assert "checkpoint of step 80, 20 steps before the end" in warning.message
