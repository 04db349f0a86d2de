"""What a user does to a run: suspends it, edits it."""

from __future__ import annotations

import pytest

from pretrain_operator import conditions
from pretrain_operator.api.spec import RunSpec
from pretrain_operator.manifests.inputs import training_digest
from pretrain_operator.observed import ObjectKey

from .runs import demo_run
from .scenarios import (
    STEPS,
    components,
    job_names,
    serving_run,
    settle,
    started,
    state,
    step,
    training_run,
    until,
    until_state,
)
from .world import SETTINGS, Operator, changed

# Suspending


def test_run_suspended_in_training_saves_frees_its_devices_and_goes_on_when_resumed():
    simulation = training_run()
    simulation.world.edit(suspend=True)
    settle(simulation)
    assert state(simulation) == conditions.SUSPENDING
    until_state(simulation, conditions.SUSPENDED)
    simulation.tick()
    settle(simulation)
    assert components(simulation) == set()
    assert ObjectKey("Deployment", "demo-coordinator") not in simulation.world.objects
    simulation.world.edit(suspend=False)
    until_state(simulation, conditions.SERVING)
    assert simulation.world.status.attempt == 1


def test_run_suspended_from_the_start_makes_no_pod():
    simulation = started(suspend=True)
    for _ in range(3):
        settle(simulation)
        simulation.tick()
    assert state(simulation) == conditions.SUSPENDED
    assert simulation.world.of_kind("Pod") == []
    assert simulation.world.status.stages == ()


def test_run_suspended_in_the_data_stage_runs_it_again_when_resumed():
    simulation = started()
    settle(simulation)
    simulation.tick()
    simulation.world.edit(suspend=True)
    until_state(simulation, conditions.SUSPENDED)
    simulation.world.edit(suspend=False)
    until_state(simulation, conditions.SERVING)


def test_run_suspended_while_serving_has_no_server_and_serves_again_when_resumed():
    simulation = serving_run()
    simulation.world.edit(suspend=True)
    settle(simulation)
    simulation.tick()
    until_state(simulation, conditions.SUSPENDED)
    simulation.tick()
    assert "serving" not in components(simulation)
    simulation.world.edit(suspend=False)
    until_state(simulation, conditions.SERVING)


# Edits


def test_edit_of_what_an_attempt_is_made_from_starts_a_new_one_after_the_old_is_gone():
    simulation = training_run()
    simulation.world.edit(checkpoint={"interval": 30})
    settle(simulation)
    assert simulation.world.status.attempt == 2
    assert job_names(simulation) == ["demo-data"]  # the old pods are still saving
    coordinator = simulation.world.objects[ObjectKey("Deployment", "demo-coordinator")]
    assert coordinator["metadata"]["labels"]["pretrain.dev/attempt"] == "1"
    assert any("demo-train-1" in pod["metadata"]["name"] for pod in simulation.world.of_kind("Pod"))
    simulation.tick()
    settle(simulation)
    assert "demo-train-2" in job_names(simulation)
    until_state(simulation, conditions.SERVING)
    assert step(simulation) == STEPS


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("training", {"localBatchSize": 4}),
        ("training", {"activationCheckpointing": "full"}),
        ("training", {"compile": True}),
        ("nodes", {"template": {"resources": {"limits": {"memory": "9Gi"}}}}),
        ("nodes", {"count": 1}),
        ("nodes", {"devicesPerNode": 2}),
        ("parallelism", {"dataParallelReplicate": 2}),
    ],
)
def test_edit_of_how_training_runs_is_a_new_attempt_that_goes_on(part, changes):
    simulation = training_run()
    edited = {**simulation.world.body["spec"].get(part, {}), **changes}
    simulation.world.edit(**{part: edited})
    simulation.slots = edited.get("count", 2)
    settle(simulation)
    assert simulation.world.status.attempt == 2
    until_state(simulation, conditions.SERVING)
    assert step(simulation) == STEPS


def test_edit_of_how_training_runs_leaves_a_later_stage_alone():
    simulation = started()
    until(simulation, lambda: "demo-post-sft" in job_names(simulation))
    uid = simulation.world.objects[ObjectKey("Job", "demo-post-sft")]["metadata"]["uid"]
    simulation.world.edit(
        training=changed(simulation.world.body["spec"]["training"], localBatchSize=4),
        checkpoint={"interval": 7},
    )
    settle(simulation)
    after = simulation.world.objects[ObjectKey("Job", "demo-post-sft")]
    assert (after["metadata"]["uid"], after["metadata"].get("deletionTimestamp")) == (uid, None)


def test_edit_of_a_later_stage_does_not_disturb_training():
    simulation = training_run()
    simulation.world.edit(postTraining=[{"name": "other", "steps": 9}])
    settle(simulation)
    assert simulation.world.status.attempt == 1
    until_state(simulation, conditions.SERVING)
    assert simulation.world.status.artifacts[-1].name == "other"


def test_operator_of_another_version_leaves_a_running_attempt_alone():
    simulation = training_run()
    newer = SETTINGS.model_copy(update={"unreachable_seconds": 60})
    decided = Operator(simulation.world, settings=newer).plan()
    assert (decided.apply, decided.delete) == ((), ())
    assert decided.status.attempt == 1


def test_field_that_a_newer_operator_knows_is_no_edit_while_it_has_its_default():
    spec = demo_run().spec
    assert spec is not None
    explicit = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    again = RunSpec.model_validate(explicit)
    assert training_digest(again, 0) == training_digest(spec, 0)
    assert training_digest(demo_run(nodes__spares=1).spec or spec, 0) != training_digest(spec, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"suspend": True},
        {"serving__replicas": 3},
        {"recovery": {"maxApplicationFaults": 7}},
        {"postTraining": []},
        {"data__template": {"image": "a:2"}},
        {"export__template": {"image": "a:2"}},
    ],
)
def test_edit_of_what_an_attempt_is_not_made_from_is_no_new_attempt(changes):
    edited, spec = demo_run(**changes).spec, demo_run().spec
    assert edited is not None
    assert spec is not None
    assert training_digest(edited, 0) == training_digest(spec, 0)


def test_edit_to_a_value_that_only_python_takes_for_equal_makes_the_job_anew():
    """What is kept between passes is found by equality, and 1 == True."""
    mount = {"name": "more", "mountPath": "/more", "readOnly": 1}
    simulation = started(data__template={"volumeMounts": [mount]})
    settle(simulation)
    simulation.world.edit(
        data={
            **simulation.world.body["spec"]["data"],
            "template": {"volumeMounts": [{**mount, "readOnly": True}]},
        }
    )
    settle(simulation)
    job = simulation.world.objects[ObjectKey("Job", "demo-data")]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["volumeMounts"][-1]["readOnly"] is True


def test_edit_of_the_data_template_makes_its_job_anew():
    simulation = started()
    settle(simulation)
    first = simulation.world.objects[ObjectKey("Job", "demo-data")]
    simulation.world.edit(data=changed(first and simulation.world.body["spec"]["data"],
                                       template={"image": "other:2"}))  # fmt: skip
    settle(simulation)
    second = simulation.world.objects[ObjectKey("Job", "demo-data")]
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert second["spec"]["template"]["spec"]["containers"][0]["image"] == "other:2"


def test_stage_added_behind_a_served_model_runs_while_the_old_one_serves_and_then_replaces_it():
    simulation = serving_run()
    entries = simulation.world.body["spec"]["postTraining"]
    simulation.world.edit(postTraining=[*entries, {"name": "more", "steps": 5}])
    settle(simulation)
    assert state(simulation) == conditions.POST_TRAINING
    assert ObjectKey("Deployment", "demo-serve") in simulation.world.objects
    until_state(simulation, conditions.SERVING)
    deployment = simulation.world.objects[ObjectKey("Deployment", "demo-serve")]
    command = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "/workspace/demo-post-more" in command


def test_serving_taken_out_of_the_spec_is_removed():
    simulation = serving_run()
    spec = {key: value for key, value in simulation.world.body["spec"].items() if key != "serving"}
    simulation.world.body = {**simulation.world.body, "spec": spec}
    settle(simulation)
    assert state(simulation) == conditions.COMPLETED
    assert simulation.world.of_kind("Deployment") == []
    assert simulation.world.status.serving is None
