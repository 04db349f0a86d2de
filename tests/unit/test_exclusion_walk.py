"""A run leaves the node of a broken device: by its mark, or, where none may be written, by name."""

from __future__ import annotations

import pytest

from pretrain_operator import conditions, names
from pretrain_operator.settings import Settings

from .scenarios import settle, state, summary, training_run
from .simulation import Simulation, label
from .simulation_faults import break_device, suspend_for_three_ticks
from .world import SETTINGS, Operator

SECONDS = 600
LABELLING, BY_NAME = (
    Settings.model_validate(
        {**SETTINGS.model_dump(), "node_exclusion": {"marks": marks, "seconds": SECONDS}}
    )
    for marks in ("Label", "None")
)
FROM_RUN = names.excluded_from_label("run-uid")


def places(simulation: Simulation) -> dict[str, str]:
    """Names of the training pods that are on a node, by their nodes."""
    return {
        pod["spec"]["nodeName"]: pod["metadata"]["name"]
        for pod in simulation.world.of_kind("Pod")
        if label(pod, names.COMPONENT_LABEL) == "training" and "nodeName" in pod["spec"]
    }


def labels(simulation: Simulation, node: str) -> dict[str, str]:
    found: dict[str, str] = simulation.world.nodes[node]["metadata"].get("labels", {})
    return found


def walk(simulation: Simulation, settings: Settings, ticks: int) -> None:
    for _ in range(ticks):
        simulation.tick()
        settle(simulation, settings)


def hit(settings: Settings) -> Simulation:
    """The device on node-0 has broken, and the operator has heard of it."""
    simulation = training_run(settings, training__steps=200)
    assert list(places(simulation)) == ["node-0", "node-1"]
    break_device(simulation)
    settle(simulation, settings)
    return simulation


def test_pod_on_a_marked_node_is_replaced_elsewhere_in_the_same_attempt():
    simulation = hit(LABELLING)
    (entry,) = simulation.world.status.excluded_nodes
    assert (entry.name, entry.scope) == ("node-0", "Run")
    assert entry.reason.startswith("DeviceBroken at ")
    assert labels(simulation, "node-0").keys() == {FROM_RUN}
    other = places(simulation)["node-1"]
    walk(simulation, LABELLING, 4)
    assert places(simulation).keys() == {"node-1", "node-2"}
    assert places(simulation)["node-1"] == other
    assert state(simulation) == conditions.TRAINING
    assert simulation.world.status.attempt == 1
    told = [event for event in simulation.world.events.values() if event.reason == "NodeExcluded"]
    assert [event.message.split(" until ")[0] for event in told] == [
        "node node-0 is excluded from this run"
    ]


def test_node_is_marked_before_its_pod_is_deleted():
    """Else the Job could put the next one there."""
    simulation = training_run(LABELLING, training__steps=200)
    break_device(simulation)
    operator = Operator(simulation.world, LABELLING)
    operator.settle()
    calls = operator.calls
    assert calls.index("apply Node") < calls.index("delete Pod")
    assert calls.count("delete Pod") == 1


def test_mark_goes_when_the_exclusion_is_over():
    simulation = hit(LABELLING)
    simulation.world.now += SECONDS
    settle(simulation, LABELLING)
    assert simulation.world.status.excluded_nodes == ()
    assert labels(simulation, "node-0") == {}


def test_run_without_the_right_to_mark_nodes_leaves_them_with_a_new_attempt():
    simulation = hit(BY_NAME)
    assert simulation.world.status.attempt == 2
    walk(simulation, BY_NAME, 6)
    assert places(simulation).keys() == {"node-1", "node-2"}
    assert (state(simulation), simulation.world.status.attempt) == (conditions.TRAINING, 2)
    assert labels(simulation, "node-0") == {}


def test_suspended_run_leaves_the_node_when_it_goes_on():
    simulation = training_run(BY_NAME, training__steps=200)
    suspend_for_three_ticks(simulation)
    break_device(simulation)
    settle(simulation, BY_NAME)
    assert simulation.world.status.attempt == 1
    walk(simulation, BY_NAME, 12)
    assert "node-0" not in places(simulation)
    assert state(simulation) == conditions.TRAINING


def test_excluded_nodes_are_named_where_no_node_is_left():
    simulation = training_run(LABELLING, training__steps=200)
    for name in ("node-2", "node-3"):
        del simulation.world.nodes[name]
    break_device(simulation)
    settle(simulation, LABELLING)
    walk(simulation, LABELLING, 2)
    assert places(simulation).keys() == {"node-1"}
    found = summary(simulation)
    assert found.reason == conditions.UNSCHEDULABLE
    assert "Excluded after faults: node-0 until 2026-" in found.message


@pytest.mark.parametrize("settings", [LABELLING, BY_NAME], ids=["labels", "names"])
def test_run_that_never_excludes_stays_where_it_is(settings: Settings):
    simulation = training_run(settings, training__steps=200, recovery__excludeNodeAfter=0)
    break_device(simulation)
    settle(simulation, settings)
    walk(simulation, settings, 4)
    assert places(simulation).keys() == {"node-0", "node-1"}
    assert (state(simulation), simulation.world.status.attempt) == (conditions.TRAINING, 1)
