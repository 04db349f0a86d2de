"""Which pods are given up for their node: Kubernetes' word alone is not enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pretrain_llm.contract.protocol import LEASE_SECONDS
from pretrain_llm.contract.status import LEASE_EXPIRED
from pretrain_operator.observed import ObjectKey
from pretrain_operator.wire import lost_pod

from .scenarios import SETTINGS, training_run
from .simulation import Simulation, node
from .simulation_faults import break_round
from .world import Object, Operator, changed

UNREACHABLE = SETTINGS.unreachable_seconds
LONG = 600.0
GIVEN_UP = lost_pod("llm", "any", "any", 0.0)["status"]


def observed(
    *,
    not_ready_for: float | None,
    silent_for: float | None = None,
    listens_for: float = LONG,
    unanswered: float | None = None,
    deleting: bool = False,
    ended: Object | None = None,
) -> tuple[Simulation, str]:
    """A run that trains, and the pod of its last slot, which is on that node. `silent_for`: since
    its agent's last report; None: the coordinator does not know it.
    """
    simulation = training_run()
    world = simulation.world
    assert world.document is not None
    *others, agent = world.document.agents
    told = () if silent_for is None else (replace(agent, last_seen=world.now - silent_for),)
    world.document = replace(
        world.document, agents=(*others, *told), started_at=world.document.time - listens_for
    )
    if not_ready_for is not None:
        dark = node(agent.node, ready=False, since=world.now - not_ready_for)
        world.nodes[agent.node] = dark
    key = ObjectKey("Pod", agent.name)
    pod = changed(world.objects[key], status=ended or {})
    world.objects[key] = world.terminating(pod) if deleting else pod
    if unanswered is not None:
        world.document = None
    return simulation, agent.name


def by_force(simulation: Simulation, unanswered: float | None = None) -> list[str]:
    """`unanswered`: for how many seconds the coordinator has been."""
    since = None if unanswered is None else simulation.world.now - unanswered
    decided = Operator(simulation.world).plan(silent_since=since)
    return [d.key.name for d in decided.delete if d.grace_seconds == 0]


@pytest.mark.parametrize(
    ("seen", "is_lost"),
    [
        pytest.param({"not_ready_for": LONG, "silent_for": LONG}, True, id="silent to both"),
        pytest.param({"not_ready_for": LONG, "silent_for": 0.5}, False, id="its agent reports"),
        pytest.param({"not_ready_for": LONG, "silent_for": None}, True, id="never reported"),
        pytest.param({"not_ready_for": None, "silent_for": LONG}, False, id="node is ready"),
        pytest.param(
            {"not_ready_for": UNREACHABLE - 1.0, "silent_for": LONG}, False, id="not for long"
        ),
        pytest.param(
            {"not_ready_for": UNREACHABLE, "silent_for": LEASE_SECONDS}, True, id="just long enough"
        ),
        pytest.param(
            {"not_ready_for": LONG, "listens_for": LEASE_SECONDS - 1.0},
            False,
            id="a new coordinator has not heard of all yet",
        ),
        pytest.param({"not_ready_for": LONG, "unanswered": 59.0}, False, id="nobody to ask"),
        pytest.param({"not_ready_for": LONG, "unanswered": 60.0}, True, id="nobody for long"),
        pytest.param(
            {"not_ready_for": 1.0, "silent_for": LONG, "deleting": True}, True, id="stuck"
        ),
        pytest.param(
            {"not_ready_for": LONG, "silent_for": 0.5, "deleting": True},
            False,
            id="deleted, and its agent goes on until its kubelet hears of it",
        ),
        pytest.param(
            {"not_ready_for": LONG, "unanswered": 1.0, "deleting": True},
            False,
            id="deleted, and one answer came late",
        ),
        pytest.param(
            {"not_ready_for": LONG, "unanswered": UNREACHABLE, "deleting": True},
            True,
            id="deleted, and nobody to ask",
        ),
        pytest.param(
            {"not_ready_for": LONG, "silent_for": LONG, "ended": {"phase": "Failed"}},
            False,
            id="has ended",
        ),
        pytest.param(
            {"not_ready_for": LONG, "silent_for": LONG, "ended": GIVEN_UP},
            True,
            id="given up by an operator that was killed then",
        ),
    ],
)
def test_pod_is_given_up_once_nobody_hears_of_it(seen: dict[str, Any], is_lost: bool):
    simulation, name = observed(**seen)
    assert by_force(simulation, seen.get("unanswered")) == ([name] if is_lost else [])


def test_pods_of_the_attempt_before_save_while_their_agents_report():
    simulation, _ = observed(not_ready_for=LONG, silent_for=0.5, deleting=True)
    world = simulation.world
    world.body = changed(world.body, status={"attempt": 2})
    assert by_force(simulation) == []


def test_lost_agent_that_a_new_coordinator_never_heard_of_is_its_nodes_fault():
    """It knows a name alone: where the pod was, and why it went, is the operator's to know."""
    simulation, name = observed(not_ready_for=LONG, silent_for=None)
    world = simulation.world
    node_name = world.objects[ObjectKey("Pod", name)]["spec"]["nodeName"]
    Operator(world).one_pass()
    del world.objects[ObjectKey("Pod", name)]
    world.nodes[node_name] = node(node_name)  # back again
    break_round(simulation, evidence=LEASE_EXPIRED, agent=name)
    Operator(world).one_pass()
    (incident,) = world.status.incidents
    assert incident.fault_class == "NodeLost"
    assert (incident.suspect.pod, incident.suspect.node) == (name, node_name)


def test_pod_on_a_node_that_the_cache_has_not_seen_yet_is_left_alone():
    simulation, name = observed(not_ready_for=None)
    del simulation.world.nodes[simulation.world.objects[ObjectKey("Pod", name)]["spec"]["nodeName"]]
    assert by_force(simulation) == []


def test_operator_that_may_not_read_nodes_gives_no_pod_up():
    simulation, _ = observed(not_ready_for=LONG)
    simulation.world.nodes = {}
    assert by_force(simulation) == []


@pytest.mark.parametrize(
    ("not_ready_for", "unanswered", "deleting", "is_lost"),
    [
        pytest.param(LONG, UNREACHABLE, False, True, id="silent"),
        pytest.param(LONG, UNREACHABLE - 1.0, False, False, id="one answer is late"),
        pytest.param(LONG, None, False, False, id="it answers"),
        pytest.param(UNREACHABLE - 1.0, LONG, False, False, id="not for long"),
        pytest.param(0.0, None, True, True, id="deleted: another answers"),
    ],
)
def test_coordinator_on_a_silent_node_is_given_up_once_it_does_not_answer(
    not_ready_for: float, unanswered: float | None, deleting: bool, is_lost: bool
):
    simulation = training_run()
    world = simulation.world
    (pod,) = [item for item in world.of_kind("Pod") if "coordinator" in item["metadata"]["name"]]
    place = pod["spec"]["nodeName"]
    world.nodes[place] = node(place, ready=False, since=world.now - not_ready_for)
    if deleting:
        world.objects[ObjectKey("Pod", pod["metadata"]["name"])] = world.terminating(pod)
    if unanswered is not None:
        world.document = None
    assert (pod["metadata"]["name"] in by_force(simulation, unanswered)) is is_lost


def test_operator_remembers_since_when_a_coordinator_is_silent():
    simulation, name = observed(not_ready_for=LONG, unanswered=0.0)
    operator, world = Operator(simulation.world), simulation.world
    operator.one_pass()
    world.now += 59.0
    operator.settle()
    assert world.objects[ObjectKey("Pod", name)]["status"]["phase"] == "Running"
    world.now += 1.0
    operator.settle()
    assert world.objects[ObjectKey("Pod", name)]["status"]["phase"] == "Failed"


def test_silent_node_is_looked_at_again_without_an_event():
    simulation, _ = observed(not_ready_for=1.0, unanswered=0.0)
    Operator(simulation.world).settle()
    assert Operator(simulation.world).plan().requeue_after_seconds == SETTINGS.poll_interval_seconds
