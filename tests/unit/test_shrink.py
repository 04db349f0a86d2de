"""A run that goes on with fewer nodes, and grows again: what is told, charged and booked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrain_llm.contract.status import MORE_NODES, Incident, StatusDocument
from pretrain_operator import conditions
from pretrain_operator.api.status import IncidentStatus
from pretrain_operator.observed import ObjectKey

from .scenarios import settle, state, summary, training_run
from .simulation import Simulation
from .simulation_faults import power_off_node
from .test_goodput import UNSCHEDULABLE, account_of, at_step, booked, passed, training_of
from .world import changed

WAITED_SECONDS = 120.0


def without_a_node() -> Simulation:
    """A run of two nodes lost one; its pod is made anew and finds no other."""
    simulation = training_run(nodes__min=1, training__steps=10_000)
    world = simulation.world
    power_off_node(simulation)
    assert world.document is not None
    world.document = replace(world.document, wanted_nodes=2)
    key = ObjectKey("Pod", world.document.agents[-1].name)
    lost = world.objects[key]
    settle(simulation)
    world.objects[key] = changed(lost, spec={"nodeName": None}, status=UNSCHEDULABLE)
    settle(simulation)
    return simulation


def with_incident(document: StatusDocument, **changes: object) -> StatusDocument:
    incidents = (*document.incidents[:-1], replace(document.incidents[-1], **changes))
    return replace(document, incidents=incidents)


def told(simulation: Simulation, document: StatusDocument) -> IncidentStatus:
    simulation.world.document = replace(document, time=simulation.world.now)
    settle(simulation)
    return simulation.world.status.incidents[-1]


def shrunk() -> Simulation:
    """It waited for two minutes, and steps with the one that is left."""
    simulation = without_a_node()
    world = simulation.world
    document = world.document
    assert document is not None
    lost, last = document.incidents[-1], document.incidents[-1].last_step
    world.now += WAITED_SECONDS + 3.0
    formed_at = lost.time + (lost.detect_seconds or 0.0) + WAITED_SECONDS
    document = with_incident(
        document,
        nodes=2,
        next_nodes=1,
        reschedule_seconds=WAITED_SECONDS,
        restore_seconds=1.0,
        first_step_seconds=1.0,
        resumed_step=last,
    )
    agents = tuple(replace(a, rank=0 if a.rank == 0 else None) for a in document.agents)
    document = replace(
        document,
        agents=agents,
        broken=False,
        round=lost.round + 1,
        round_formed_at=formed_at,
        waiting_for=None,
    )
    told(simulation, at_step(document, last + 1, formed_at + 2.0))
    return simulation


def test_lost_node_without_a_replacement_is_a_shrink_and_is_charged_once():
    simulation = shrunk()
    status = simulation.world.status
    (incident,) = status.incidents
    assert (incident.fault_class, incident.level) == ("NodeLost", "Shrink")
    assert (incident.budget, incident.nodes, status.budgets.total) == ("Infrastructure", 1, 1)
    assert status.training is not None
    assert (status.training.nodes, status.training.wanted_nodes) == (1, 2)
    events = {event.reason: event.message for event in simulation.world.events.values()}
    assert events["Shrunk"] == "no replacement within 120 s; goes on with 1 nodes"
    assert "Recovered" in events


def test_lost_node_that_is_still_waited_for_is_no_shrink_yet():
    simulation = without_a_node()
    (incident,) = simulation.world.status.incidents
    assert (incident.level, incident.nodes) == ("NodeReplacement", None)
    assert state(simulation) == conditions.UNSCHEDULABLE


def test_shrunk_run_trains_although_a_pod_finds_no_node():
    simulation = shrunk()
    assert state(simulation) == conditions.TRAINING
    message = summary(simulation).message
    assert message.startswith("attempt 1, on 1 of 2 nodes; one more waits: ")
    assert "Add nodes" in message


def test_shrunk_run_books_its_steps_and_the_wait_before_them():
    simulation = shrunk()
    assert account_of(simulation).activity == "Stepping"
    training = training_of(simulation)
    waited = training.badput_seconds.get("Recovery", 0.0) + training.badput_seconds["Queued"]
    assert waited == pytest.approx(WAITED_SECONDS + 2.0, abs=1.0)
    assert booked(training) == pytest.approx(passed(simulation), abs=1e-6)


def test_growing_is_an_incident_that_nobody_pays_for_and_loses_no_step():
    simulation = shrunk()
    world = simulation.world
    document = world.document
    assert document is not None
    assert document.progress is not None
    world.now += 60.0
    last = document.progress.step + 100
    grown = Incident(
        document.round,
        world.now - 2.0,
        MORE_NODES,
        last_step=last,
        detect_seconds=0.0,
        reschedule_seconds=0.1,
        restore_seconds=0.5,
        first_step_seconds=0.4,
        resumed_step=last,
        nodes=1,
        next_nodes=2,
    )
    agents = tuple(replace(agent, rank=rank) for rank, agent in enumerate(document.agents))
    document = replace(
        document,
        agents=agents,
        incidents=(*document.incidents, grown),
        round=document.round + 1,
        round_formed_at=world.now - 1.9,
    )
    incident = told(simulation, at_step(document, last + 1, world.now - 1.0))
    assert (incident.fault_class, incident.level, incident.budget) == ("MoreNodes", "Grow", "None")
    assert (incident.nodes, incident.steps_lost, world.status.budgets.total) == (2, 0, 1)
    event = next(event for event in world.events.values() if event.reason == "MoreNodes")
    assert event.type == "Normal"
    training = training_of(simulation)
    assert training.badput_seconds["Recovery"] < 5.0
    assert training.productive_seconds > 50.0
    assert booked(training) == pytest.approx(passed(simulation), abs=1e-6)
