"""Each incident is charged once and kept up to date; progress resets the budgets."""

from __future__ import annotations

from dataclasses import replace

from pretrain_llm.contract.reports import FaultReport
from pretrain_llm.contract.status import Incident
from pretrain_operator.observed import ObjectKey

from .simulation import Simulation, kill_worker, node, power_off_node
from .test_plan_scenarios import settle, started, step, until


def training() -> Simulation:
    simulation = started()
    until(simulation, lambda: step(simulation) >= 30)
    return simulation


def test_incident_that_is_seen_again_is_charged_once():
    simulation = training()
    kill_worker(simulation)
    for _ in range(3):
        settle(simulation)
        simulation.world.now += 1
    budgets = simulation.world.status.budgets
    assert (budgets.infrastructure, budgets.total) == (1, 1)


def test_durations_come_in_while_the_run_recovers():
    simulation = training()
    kill_worker(simulation)
    settle(simulation)
    (incident,) = simulation.world.status.incidents
    assert (incident.detect_seconds, incident.reschedule_seconds) == (0.1, None)
    until(simulation, lambda: simulation.world.status.incidents[0].first_step_seconds)
    (incident,) = simulation.world.status.incidents
    phases = (incident.reschedule_seconds, incident.restore_seconds, incident.first_step_seconds)
    assert phases == (1.0, 1.0, 0.5)
    assert incident.steps_lost == 0


def test_progress_past_a_fault_resets_the_counts_but_not_the_total():
    simulation = training()
    kill_worker(simulation)
    settle(simulation)
    assert simulation.world.status.budgets.infrastructure == 1
    reached = step(simulation)
    until(simulation, lambda: step(simulation) > reached)
    budgets = simulation.world.status.budgets
    assert (budgets.infrastructure, budgets.total) == (0, 1)


def test_lost_node_is_blamed_once_kubernetes_has_noticed_it():
    simulation = training()
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
    assert world.status.budgets.total == 1


def test_pod_that_turns_out_to_have_run_out_of_memory_moves_the_charge():
    simulation = training()
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


def test_new_coordinator_that_counts_rounds_anew_is_still_heard():
    simulation = training()
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


def test_incidents_in_the_status_are_bounded():
    simulation = training()
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
    simulation = training()
    kill_worker(simulation)
    simulation.world.edit(checkpoint={"interval": 7})
    settle(simulation)
    status = simulation.world.status
    assert (status.attempt, status.budgets.total) == (2, 1)
    settle(simulation)
    assert simulation.world.status.budgets.total == 1
