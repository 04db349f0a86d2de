"""Each incident is charged once and kept up to date; progress resets the budgets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrain_llm.contract.reports import FaultReport
from pretrain_llm.contract.status import STALLED, Incident, Suspicion
from pretrain_operator import conditions, reconcile, restarts
from pretrain_operator.api.status import IncidentStatus, RunStatus
from pretrain_operator.observed import ObjectKey
from pretrain_operator.times import timestamp

from .scenarios import settle, state, step, summary, training_run, until
from .simulation import Simulation, node
from .simulation_faults import kill_worker, power_off_node
from .world import changed


def _incident(number: int, budget: str, *, stepped: bool) -> IncidentStatus:
    return IncidentStatus(
        attempt=1,
        round=number,
        time=timestamp(float(number)),
        fault_class="WorkerKilled",
        cause="a worker was killed",
        budget=budget,
        level="WorkerRestart",
        first_step_seconds=1.0 if stepped else None,
    )


@pytest.mark.parametrize(
    ("told", "barren"),
    [
        ("I. I. I.", True),
        ("I. I.", False),
        ("I+ I. I.", False),
        ("I. I+ I.", False),
        ("I. N+ I. N+ I.", False),  # drains cut recoveries short, and steps were made after each
        ("I. N. I. N. I.", True),
        ("I+ I. I. I.", True),
    ],
)
def test_incidents_without_a_step_between_them_are_barren(told: str, barren: bool):
    budgets = {"I": "Infrastructure", "N": "None"}
    incidents = tuple(
        _incident(number, budgets[mark[0]], stepped=mark[1] == "+")
        for number, mark in enumerate(told.split(), start=1)
    )
    assert restarts._is_barren(RunStatus(attempt=1, incidents=incidents)) is barren


def test_incident_that_is_seen_again_is_charged_once():
    simulation = training_run()
    kill_worker(simulation)
    for _ in range(3):
        settle(simulation)
        simulation.world.now += 1
    budgets = simulation.world.status.budgets
    assert (budgets.infrastructure, budgets.total) == (1, 1)


def test_durations_come_in_while_the_run_recovers():
    simulation = training_run()
    kill_worker(simulation)
    settle(simulation)
    (incident,) = simulation.world.status.incidents
    assert (incident.detect_seconds, incident.reschedule_seconds) == (0.1, None)
    until(simulation, lambda: simulation.world.status.incidents[0].first_step_seconds)
    (incident,) = simulation.world.status.incidents
    phases = (incident.reschedule_seconds, incident.restore_seconds, incident.first_step_seconds)
    assert phases == pytest.approx((4.9, 1.0, 0.5))
    assert incident.steps_lost == 0


def test_fault_of_an_older_image_is_classed_by_its_error_and_echoes_are_counted():
    simulation = training_run()
    world = simulation.world
    fault = FaultReport(1, 0, world.now, exit_code=1, error_message="NVRM: Xid (PCI:1): 79, x")
    incident = Incident(1, world.now, "WorkerExit", first_fault=fault, echoes=7)
    world.document = replace(world.document, incidents=(incident,))
    settle(simulation)
    (told,) = world.status.incidents
    assert (told.fault_class, told.echoes) == ("DeviceBroken", 7)


def test_progress_past_a_fault_resets_the_counts_but_not_the_total():
    simulation = training_run()
    kill_worker(simulation)
    settle(simulation)
    assert simulation.world.status.budgets.infrastructure == 1
    reached = step(simulation)
    until(simulation, lambda: step(simulation) > reached)
    budgets = simulation.world.status.budgets
    assert (budgets.infrastructure, budgets.total) == (0, 1)


def test_lost_node_is_blamed_once_kubernetes_has_noticed_it():
    simulation = training_run()
    world = simulation.world
    power_off_node(simulation)
    assert world.document is not None
    lost = world.document.incidents[-1]
    pod = world.objects[ObjectKey("Pod", str(lost.agent))]
    nodes = dict(world.nodes)
    world.nodes[str(lost.node)] = node(str(lost.node))
    alive = {k: v for k, v in pod["metadata"].items() if k != "deletionTimestamp"}
    world.objects[ObjectKey("Pod", str(lost.agent))] = {**pod, "metadata": alive}
    settle(simulation)
    assert world.status.incidents[-1].fault_class == "AgentLost"
    world.nodes = nodes
    settle(simulation)
    assert world.status.incidents[-1].fault_class == "NodeLost"
    world.nodes[str(lost.node)] = node(str(lost.node))  # before the run has recovered
    settle(simulation)
    assert world.status.incidents[-1].fault_class == "NodeLost"
    assert world.status.budgets.total == 1


def test_pod_that_turns_out_to_have_run_out_of_memory_moves_the_charge():
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    agent = world.document.agents[0]
    incident = Incident(1, world.now, "LeaseExpired", agent=agent.name, last_step=30)
    world.document = replace(world.document, broken=True, incidents=(incident,))
    settle(simulation)
    budgets = world.status.budgets
    assert (budgets.infrastructure, budgets.application) == (1, 0)
    key = ObjectKey("Pod", agent.name)
    ended = {"exitCode": 137, "reason": "OOMKilled", "message": ""}
    state = {"name": "main", "state": {"terminated": ended}}
    status = {"phase": "Failed", "containerStatuses": [state]}
    world.objects[key] = {**world.objects[key], "status": status}
    settle(simulation)
    assert world.status.incidents[-1].fault_class == "HostMemory"
    budgets = world.status.budgets
    assert (budgets.infrastructure, budgets.application, budgets.total) == (0, 1, 1)


def test_pod_that_outlived_a_workers_memory_kill_is_no_second_one_when_its_agent_dies():
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    agent = world.document.agents[0]
    starved = FaultReport(1, 0, world.now, signal=9, out_of_memory=True)
    first = Incident(1, world.now, "WorkerExit", agent.name, first_fault=starved, last_step=30)
    recovered = replace(first, resumed_step=20, first_step_seconds=1.0)
    lost = Incident(2, world.now, "LeaseExpired", agent=agent.name, last_step=40)
    world.document = replace(world.document, broken=True, incidents=(recovered, lost))
    key = ObjectKey("Pod", agent.name)
    ended = {"exitCode": 137, "reason": "OOMKilled", "message": ""}
    status = {
        "phase": "Failed",
        "containerStatuses": [{"name": "main", "state": {"terminated": ended}}],
    }
    world.objects[key] = {**world.objects[key], "status": status}
    settle(simulation)
    classes = [incident.fault_class for incident in world.status.incidents]
    assert classes == ["HostMemory", "AgentLost"]


def test_hang_is_charged_once_its_stacks_are_told_with_the_suspect_and_its_frames():
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    pod = world.document.agents[0].name
    told = Incident(1, world.now - 8, STALLED, last_step=30, detect_seconds=8.0)
    hung = replace(world.document, round=1, broken=True, progress=None, incidents=(told,))
    world.document = replace(hung, time=world.now + 1)
    settle(simulation)
    assert world.status.incidents == ()

    suspect = Suspicion(3, "it is not in the collective that others wait in", ("a.py:1 f", "b:2 g"))
    told = replace(told, agent=pod, suspects=(suspect,), stacks_path="/v/logs/stacks")
    world.document = replace(hung, time=world.now + 5, incidents=(told,))
    settle(simulation)
    (incident,) = world.status.incidents
    assert (incident.fault_class, incident.budget) == ("Hang", "Application")
    assert (incident.suspect.rank, incident.suspect.pod) == (3, pod)
    assert incident.cause.endswith(
        ": rank 3: it is not in the collective that others wait in, at a.py:1 f < b:2 g;"
        " stacks in /v/logs/stacks"
    )
    assert world.status.budgets.total == 1


def test_new_coordinator_that_counts_rounds_anew_is_still_heard():
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    world.document = replace(world.document, round=7)
    kill_worker(simulation)
    settle(simulation)
    assert world.status.last_incident_round == 7
    world.now += 60
    fault = FaultReport(1, 0, world.now, signal=9)
    incident = Incident(1, world.now, "WorkerExit", first_fault=fault, last_step=40)
    world.document = replace(
        world.document, started_at=world.now - 30, round=2, incidents=(incident,)
    )
    settle(simulation)
    settle(simulation)
    assert world.status.budgets.total == 2
    assert [item.round for item in world.status.incidents] == [7, 1]


def test_fault_in_the_first_round_after_a_suspension_is_not_the_one_in_the_first_before():
    """Both have number 1: the coordinator of the resumed run knows nothing of the other."""
    simulation = training_run()
    world = simulation.world
    kill_worker(simulation)
    settle(simulation)
    assert world.document is not None
    assert world.document.round == world.status.last_incident_round == 1
    world.now += 60
    fault = FaultReport(1, 0, world.now, signal=9)
    incident = Incident(1, world.now, "WorkerExit", first_fault=fault, last_step=40)
    anew = replace(world.document, started_at=world.now - 30, round_formed_at=world.now - 20)
    world.document = replace(anew, incidents=(), broken=False)
    settle(simulation)
    world.document = replace(anew, incidents=(incident,), broken=True)
    settle(simulation)
    settle(simulation)
    assert world.status.budgets.total == 2
    assert [item.round for item in world.status.incidents] == [1, 1]


def test_late_fault_of_an_older_time_told_by_a_new_coordinator_is_charged_once():
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    fault = FaultReport(1, 0, world.now - 10, signal=9)
    incident = Incident(1, world.now - 10, "WorkerExit", first_fault=fault, last_step=30)
    world.document = replace(world.document, started_at=world.now, incidents=(incident,))
    for _ in range(4):
        settle(simulation)
        world.now += 1
    assert world.status.budgets.total == 1
    assert state(simulation) != conditions.NO_PROGRESS


@pytest.mark.parametrize(("charged", "is_stopped"), [(0, False), (2, True)])
def test_recoveries_that_suspensions_cut_short_are_barren_only_without_progress(
    charged: int, is_stopped: bool
):
    """`charged`: of two faults before, whose rounds' first steps nobody told of."""
    simulation = training_run()
    world = simulation.world
    told = [_incident(0, "Infrastructure", stepped=False).model_dump(by_alias=True, mode="json")]
    budgets = {"infrastructure": charged, "application": 0, "step": step(simulation)}
    world.body = changed(
        world.body, status={"incidents": told * 2, "budgets": budgets, "lastIncidentRound": 0}
    )
    kill_worker(simulation)
    settle(simulation)
    assert (state(simulation) == conditions.NO_PROGRESS) is is_stopped


def test_node_that_the_coordinator_blames_is_looked_at_though_no_pod_is_on_it():
    document = training_run().world.document
    assert document is not None
    told = Incident(1, 1.0, "LeaseExpired", node="node-9")
    seen = reconcile._nodes({}, RunStatus(), replace(document, incidents=(told,)))
    assert seen == {"node-9"}


def test_incident_told_again_by_the_next_coordinator_is_charged_once():
    simulation = training_run()
    world = simulation.world
    kill_worker(simulation)
    settle(simulation)
    assert world.document is not None
    late = replace(world.document.incidents[-1], time=world.now + 6)
    world.document = replace(world.document, started_at=world.now + 5, incidents=(late,))
    settle(simulation)
    assert world.status.budgets.total == 1


def test_silent_coordinator_does_not_turn_old_pod_failures_into_a_stop():
    simulation = training_run()
    for number in range(3):
        _failed_pod(simulation, number, created=-9, ended=-1, reason="OOMKilled")
    simulation.world.document = None
    settle(simulation)
    assert state(simulation) == conditions.TRAINING


def test_failures_of_a_spare_while_a_round_steps_do_not_stop_the_run():
    simulation = training_run()
    for number in range(5):
        _failed_pod(simulation, number, created=1 + number, ended=2 + number)
    simulation.world.now += 10
    settle(simulation)
    assert state(simulation) == conditions.TRAINING


def test_old_failures_of_a_slot_do_not_stop_a_run_whose_round_broke_just_now():
    simulation = training_run()
    for number in range(5):
        _failed_pod(simulation, number, created=1 + number, ended=2 + number)
    simulation.world.now += 10
    _stepped_now(simulation)
    kill_worker(simulation)
    settle(simulation)
    assert state(simulation) == conditions.RECOVERING


def test_slot_whose_pods_fail_before_they_join_the_next_round_stops_the_run():
    simulation = training_run()
    kill_worker(simulation)
    _failed_pod(simulation, 9, created=-99, ended=1)  # the member that was lost
    for number in range(3):
        settle(simulation)
        assert state(simulation) == conditions.RECOVERING
        simulation.world.now += 10
        _failed_pod(simulation, number, created=-2, ended=-1)
    settle(simulation)
    assert state(simulation) == conditions.NO_PROGRESS
    for word in ("slot 0 failed 3 times", "joined a round", "ImportError: torch"):
        assert word in summary(simulation).message


def test_pod_out_of_memory_after_a_round_is_no_failure_of_the_first_step():
    simulation = training_run()
    kill_worker(simulation)
    simulation.world.now += 10
    _failed_pod(simulation, 0, created=-2, ended=-1, reason="OOMKilled")
    settle(simulation)
    assert state(simulation) == conditions.RECOVERING


def _stepped_now(simulation: Simulation) -> None:
    document = simulation.world.document
    assert document is not None
    assert document.progress is not None
    progress = replace(document.progress, time=simulation.world.now)
    simulation.world.document = replace(document, progress=progress)


def _failed_pod(
    simulation: Simulation, number: int, *, created: float, ended: float, reason: str = "Error"
) -> None:
    """Of slot 0; `created` and `ended` in seconds from now."""
    now = simulation.world.now
    job = simulation.world.objects[ObjectKey("Job", "demo-train-1")]
    labels = {
        **job["spec"]["template"]["metadata"]["labels"],
        "batch.kubernetes.io/job-completion-index": "0",
    }
    terminated = {
        "exitCode": 137 if reason == "OOMKilled" else 1,
        "reason": reason,
        "message": "ImportError: torch",
        "finishedAt": timestamp(now + ended),
    }
    name = f"demo-train-1-0-failed-{number}"
    simulation.world.objects[ObjectKey("Pod", name)] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": name,
            "labels": labels,
            "creationTimestamp": timestamp(now + created),
            "ownerReferences": [{"uid": "another"}],
        },
        "spec": {},
        "status": {
            "phase": "Failed",
            "containerStatuses": [{"name": "main", "state": {"terminated": terminated}}],
        },
    }


def test_incidents_in_the_status_are_bounded():
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    incidents = tuple(
        Incident(
            number,
            world.now + number,
            "WorkerExit",
            first_fault=FaultReport(number, 0, world.now, signal=9, error_message="x" * 9000),
            last_step=30 + number,
            first_step_seconds=1.0,
            resumed_step=30,
        )
        for number in range(1, 40)
    )
    world.document = replace(world.document, incidents=incidents)
    settle(simulation)
    assert len(world.status.incidents) == 20
    assert world.status.budgets.total == 39
    assert max(len(item.cause) for item in world.status.incidents) <= 1000


def test_incident_of_an_older_attempt_is_not_charged_to_the_new_one():
    simulation = training_run()
    kill_worker(simulation)
    simulation.world.edit(checkpoint={"interval": 7})
    settle(simulation)
    status = simulation.world.status
    assert (status.attempt, status.budgets.total) == (2, 1)
    settle(simulation)
    assert simulation.world.status.budgets.total == 1
