"""What a run waits for, and specifications that nothing can be made of."""

from __future__ import annotations

from typing import Any

import pytest

from pretrain_operator import conditions
from pretrain_operator.observed import ObjectKey

from .runs import demo_body
from .scenarios import (
    deploying_run,
    job_names,
    last_words,
    settle,
    started,
    state,
    summary,
    training_run,
    until_state,
)
from .simulation import Simulation, cluster
from .world import SETTINGS, Operator, World, changed

# Waiting for somebody


def test_run_without_its_claim_waits_and_goes_on_when_it_is_there():
    simulation = started()
    claim = simulation.world.objects.pop(ObjectKey("PersistentVolumeClaim", "demo"))
    settle(simulation)
    decided = Operator(simulation.world).plan()
    assert (decided.apply, decided.requeue_after_seconds) == ((), 15.0)
    assert state(simulation) == conditions.STORAGE_NOT_FOUND
    for word in ("spec.storage.claimName demo", "namespace llm", "create it"):
        assert word in summary(simulation).message
    simulation.world.objects[ObjectKey("PersistentVolumeClaim", "demo")] = claim
    until_state(simulation, conditions.SERVING)


def test_run_that_asks_for_its_claim_gets_one_that_nobody_owns():
    simulation = started(storage={"claimName": "mine", "create": {"size": "1Gi"}})
    del simulation.world.objects[ObjectKey("PersistentVolumeClaim", "mine")]
    settle(simulation)
    claim = simulation.world.objects[ObjectKey("PersistentVolumeClaim", "mine")]
    assert "ownerReferences" not in claim["metadata"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"


WAITING_PODS = [
    (
        {
            "containerStatuses": [
                {
                    "name": "main",
                    "image": "example/data:9",
                    "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
                }
            ]
        },
        conditions.IMAGE_PULL_FAILED,
        ("example/data:9", "not found", "Set spec.data.template.image"),
    ),
    (
        {
            "containerStatuses": [
                {
                    "name": "main",
                    "state": {
                        "waiting": {
                            "reason": "CreateContainerConfigError",
                            "message": 'secret "wandb" not found',
                        }
                    },
                }
            ]
        },
        conditions.CONTAINER_CONFIG_FAILED,
        ('secret "wandb" not found',),
    ),
    (
        {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available.",
                }
            ]
        },
        conditions.UNSCHEDULABLE,
        ("0/3 nodes", "Add nodes"),
    ),
    (
        {
            "initContainerStatuses": [
                {
                    "name": "check",
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {
                        "terminated": {
                            "exitCode": 64,
                            "message": last_words("another tokenizer", 64),
                        }
                    },
                }
            ]
        },
        conditions.CRASH_LOOPING,
        ("check", "another tokenizer"),
    ),
]


@pytest.mark.parametrize(("seen", "wanted", "words"), WAITING_PODS)
def test_pod_that_does_not_start_is_told_with_the_remedy_and_heals(seen, wanted, words):
    simulation = started()
    settle(simulation)
    simulation.tick()
    key = ObjectKey("Pod", "demo-data-x")
    running = simulation.world.objects[key]
    spec = {} if wanted == conditions.UNSCHEDULABLE else running["spec"]
    simulation.world.objects[key] = {
        **running,
        "spec": spec,
        "status": {"phase": "Pending", **seen},
    }
    settle(simulation)
    assert (state(simulation), summary(simulation).status) == (wanted, "Unknown")
    for word in words:
        assert word in summary(simulation).message
    simulation.world.objects[key] = running
    until_state(simulation, conditions.SERVING)


def test_server_that_crashes_again_and_again_is_told_once():
    simulation = deploying_run()
    simulation.tick()
    ended = {"exitCode": 1, "reason": "Error", "message": "no such model"}
    circle = [
        {"waiting": {"reason": "CrashLoopBackOff"}},
        {"running": {}},
        {"terminated": ended},
        {"waiting": {"reason": "CrashLoopBackOff"}},
        {"running": {}},
    ]
    for number, current in enumerate(circle):
        seen = {"restartCount": 1 + (number > 0) + (number > 3), "ready": False}
        _server_container(simulation, {"terminated": ended}, current, seen)
        settle(simulation)
        assert state(simulation) == conditions.CRASH_LOOPING
        assert "no such model" in summary(simulation).message
        simulation.world.now += 60
    told = [event for event in simulation.world.events.values() if event.reason == "CrashLooping"]
    assert len(told) == 1
    _server_container(simulation, {"terminated": ended}, {"running": {}}, {"ready": True})
    settle(simulation)
    assert state(simulation) == conditions.DEPLOYING


def test_server_that_crashed_once_and_starts_again_is_not_looping():
    simulation = deploying_run()
    simulation.tick()
    ended = {"exitCode": 1, "reason": "Error", "message": "no such model"}
    seen = {"restartCount": 1, "ready": False}
    _server_container(simulation, {"terminated": ended}, {"running": {}}, seen)
    settle(simulation)
    assert state(simulation) == conditions.DEPLOYING


def _server_container(
    simulation: Simulation, last: dict[str, Any], current: dict[str, Any], seen: dict[str, Any]
) -> None:
    """What the kubelet says of the server, and the Deployment controller of its readiness."""
    world = simulation.world
    container = {"name": "main", "lastState": last, "state": current, **seen}
    for pod in world.of_kind("Pod"):
        if pod["metadata"]["labels"]["pretrain.dev/component"] == "serving":
            status = {"phase": "Running", "containerStatuses": [container]}
            world.objects[ObjectKey("Pod", pod["metadata"]["name"])] = {**pod, "status": status}
    key = ObjectKey("Deployment", "demo-serve")
    world.objects[key] = {**world.objects[key], "status": {"readyReplicas": 0}}


def test_image_of_a_later_stage_that_cannot_be_pulled_is_told_with_its_field():
    simulation = started()
    until_state(simulation, conditions.POST_TRAINING)
    simulation.tick()
    key = ObjectKey("Pod", "demo-post-sft-x")
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "denied"}}
    status = {"name": "main", "image": "example/post:9", "state": waiting}
    simulation.world.objects[key] = {
        **simulation.world.objects[key],
        "status": {"phase": "Pending", "containerStatuses": [status]},
    }
    settle(simulation)
    for word in ("example/post:9", "spec.postTraining[0].template.image", "denied"):
        assert word in summary(simulation).message


# Specifications that nothing can be made of


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            changed(demo_body(), metadata={"name": "a" * 41}),
            ("metadata.name", "41 characters", "at most 40"),
        ),
        (demo_body(model__dim=130), ("spec.model.dim 130", "multiple of numHeads 4")),
        (demo_body(model__architecture="mamba"), ("spec.model.architecture 'mamba'", "'llama'")),
    ],
)
def test_spec_that_breaks_a_rule_is_told_and_makes_nothing(body, words):
    world = World(body)
    Operator(world).settle()
    found = conditions.condition(world.status, conditions.SUCCEEDED)
    assert found is not None
    assert (found.status, found.reason) == ("False", conditions.INVALID_SPEC)
    for word in words:
        assert word in found.message
    assert world.objects == {}


def test_run_without_an_image_names_both_places_to_set_it():
    world = cluster(World(demo_body())).world
    none = SETTINGS.model_copy(update={"templates": {}})
    Operator(world, settings=none).settle()
    found = conditions.condition(world.status, conditions.SUCCEEDED)
    assert found is not None
    assert "spec.data.template.image" in found.message
    assert "templates.data.image" in found.message


def test_run_whose_last_stage_has_no_image_is_told_before_anything_starts():
    world = cluster(World(demo_body())).world
    templates = {name: one for name, one in SETTINGS.templates.items() if name != "serving"}
    Operator(world, settings=SETTINGS.model_copy(update={"templates": templates})).settle()
    assert conditions.state(world.status) == conditions.INVALID_SPEC
    assert world.of_kind("Job") == []


def test_edit_that_breaks_a_rule_leaves_what_runs_and_the_correction_heals():
    simulation = training_run()
    before = job_names(simulation)
    model = simulation.world.body["spec"]["model"]
    simulation.world.edit(model={**model, "dim": 130})
    settle(simulation)
    assert state(simulation) == conditions.INVALID_SPEC
    assert job_names(simulation) == before
    simulation.world.edit(model=model)
    settle(simulation)
    assert state(simulation) == conditions.TRAINING
    assert simulation.world.status.attempt == 1
