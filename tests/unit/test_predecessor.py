"""A run that is made under the name of one that was deleted, whose children are not gone yet."""

from __future__ import annotations

from typing import Any

import pytest

from pretrain_operator.observed import ObjectKey

from .scenarios import training_run
from .simulation import Simulation
from .world import Operator


@pytest.fixture
def made_anew() -> Simulation:
    """All children of the deleted one are still there."""
    simulation = training_run()
    world = simulation.world
    fresh = {key: value for key, value in world.body.items() if key != "status"}
    world.body = {**fresh, "metadata": {**fresh["metadata"], "uid": "another"}}
    return simulation


def test_run_begins_once_the_children_of_its_predecessor_are_gone(made_anew: Simulation):
    world, operator = made_anew.world, Operator(made_anew.world)
    for kind in ("Job", "Deployment", "Pod"):
        waits = operator.plan()
        assert (waits.status.attempt, waits.apply, waits.create, waits.delete) == (0, (), (), ())
        assert waits.requeue_after_seconds
        for key in [key for key in world.objects if key.kind == kind]:
            del world.objects[key]
    begins = operator.plan()
    assert begins.status.conditions
    assert begins.apply


def test_children_without_an_owner_are_taken_over(made_anew: Simulation):
    world = made_anew.world
    for key, item in list(world.objects.items()):
        world.objects[key] = _without_owner(key, item)
    assert Operator(world).plan().status.conditions


def _without_owner(key: ObjectKey, item: Any) -> Any:
    """As `kubectl delete --cascade=orphan` leaves them."""
    if key.kind == "Pod":
        return item
    return {**item, "metadata": {**item["metadata"], "ownerReferences": []}}
