"""Who took a pod away is known when its round breaks, though the pod is gone by then."""

from __future__ import annotations

import pytest

from pretrain_llm.contract.status import LEASE_EXPIRED, STOP_REQUESTED
from pretrain_operator.api.status import MAX_DISRUPTIONS
from pretrain_operator.observed import ObjectKey

from .scenarios import settle, training_run
from .simulation import Simulation
from .simulation_faults import break_round
from .world import changed, key_of


def taken_away(reason: str | None) -> Simulation:
    """The pod of slot 1, for a reason; its round is broken when it is gone."""
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    agent = world.document.agents[-1]
    key = ObjectKey("Pod", agent.name)
    if reason is not None:
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        condition["message"] = "for another pod"
        pod = changed(world.objects[key], status={"conditions": [condition]})
        world.objects[key] = world.terminating(pod)
    settle(simulation)
    del world.objects[key]
    settle(simulation)
    break_round(
        simulation, evidence=STOP_REQUESTED, agent=agent.name, slot=agent.slot, node=agent.node
    )
    settle(simulation)
    return simulation


@pytest.mark.parametrize(
    ("reason", "fault_class"),
    [
        ("PreemptionByScheduler", "Preempted"),
        ("EvictionByEvictionAPI", "AskedToLeave"),
        (None, "AskedToLeave"),
    ],
)
def test_pod_that_is_gone_is_classed_by_who_took_it_away(reason: str | None, fault_class: str):
    (incident,) = taken_away(reason).world.status.incidents
    assert incident.fault_class == fault_class
    assert ("for another pod" in incident.cause) is (reason is not None)


def test_words_of_the_kubelet_are_told_though_it_calls_it_no_disruption():
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    agent = world.document.agents[-1]
    key = ObjectKey("Pod", agent.name)
    world.objects[key] = changed(world.objects[key], status={"message": "imminent node shutdown"})
    break_round(
        simulation, evidence=LEASE_EXPIRED, agent=agent.name, slot=agent.slot, node=agent.node
    )
    settle(simulation)
    assert "imminent node shutdown" in world.status.incidents[0].cause


def test_newest_disruptions_are_kept():
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    template = world.objects[ObjectKey("Pod", world.document.agents[0].name)]
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    for number in range(MAX_DISRUPTIONS + 2):
        pod = changed(template, metadata={"name": f"pod-{number:02}"})
        world.objects[key_of(pod)] = changed(pod, status={"conditions": [condition]})
        settle(simulation)
    names = [entry.pod for entry in world.status.disruptions]
    assert names == [f"pod-{number:02}" for number in range(2, MAX_DISRUPTIONS + 2)]
