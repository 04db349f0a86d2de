"""Slots whose pods failed are filled by the operator, where the Job controller would wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pretrain_operator import conditions, names
from pretrain_operator.observed import ObjectKey
from pretrain_operator.times import timestamp

from .scenarios import training_run, until_state
from .simulation import TICK_SECONDS, Simulation
from .world import Object, Operator, changed

JOB = ObjectKey("Job", "demo-train-1")
GONE, RUNNING = (), ("Running",)


def pod_of(simulation: Simulation, slot: int, phase: str, number: int) -> Object:
    """`phase`: with the exit code, or with the age of its end in seconds behind a comma."""
    job = simulation.world.objects[JOB]
    phase, _, code = phase.partition(" ")
    code, _, age = code.partition(",")
    ended = {
        "exitCode": int(code or 0),
        "finishedAt": timestamp(simulation.world.now - int(age or 0)),
    }
    containers = [{"name": "main", "state": {"terminated": ended}}] if code else []
    labels = {**job["spec"]["template"]["metadata"]["labels"], names.SLOT_LABEL: str(slot)}
    leaving = {"deletionTimestamp": timestamp(simulation.world.now)} if phase == "Leaving" else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"demo-train-1-{slot}-{number}",
            "labels": labels,
            "ownerReferences": [{"uid": job["metadata"]["uid"]}],
            **leaving,
        },
        "spec": {"nodeName": f"node-{slot}"},
        "status": {"phase": "Running" if leaving else phase, "containerStatuses": containers},
    }


def with_slots(first: tuple[str, ...], second: tuple[str, ...], **job: Any) -> Simulation:
    """A run that trains, with these pods in its two slots, and the Job's status and spec."""
    simulation = training_run()
    world = simulation.world
    for pod in world.of_kind("Pod"):
        if pod["metadata"]["name"].startswith("demo-train-1-"):
            del world.objects[ObjectKey("Pod", pod["metadata"]["name"])]
    for slot, phases in enumerate((first, second)):
        for number, phase in enumerate(phases):
            world.apply(pod_of(simulation, slot, phase, number))
    known = world.objects[JOB]
    status, spec = job.get("status", {"failed": 3}), job.get("spec", {})
    world.objects[JOB] = changed({"status": {}, **known}, status=status, spec=spec)
    return simulation


def made(simulation: Simulation) -> list[str]:
    """Slots of the pods that the operator makes."""
    pods = Operator(simulation.world).plan().create
    return [pod["metadata"]["labels"][names.SLOT_LABEL] for pod in pods]


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (RUNNING, RUNNING, []),
        (RUNNING, GONE, ["1"]),
        (GONE, GONE, ["0", "1"]),
        (RUNNING, ("Failed 75",), ["1"]),
        (RUNNING, ("Failed 75", "Running"), []),
        (RUNNING, ("Failed 75", "Pending"), []),
        (RUNNING, ("Leaving",), []),  # its node and its device are still taken
        (RUNNING, ("Succeeded 0",), []),
        (GONE, ("Failed 64",), []),  # the Job is about to fail
        (RUNNING, ("Failed 1",) * 9, ["1"]),
        (RUNNING, ("Failed 1",) * 10, []),  # the Job's to slow down
        (RUNNING, ("Failed 1,601", *("Failed 1",) * 9), ["1"]),
    ],
)
def test_vacant_slots_of_a_job_that_backs_off_get_their_pods(
    first: tuple[str, ...], second: tuple[str, ...], wanted: list[str]
):
    assert made(with_slots(first, second)) == wanted


def test_failed_pod_that_the_job_has_not_counted_is_replaced():
    """It counts none while it backs off and other pods are ready."""
    assert made(with_slots(RUNNING, ("Failed 75",), status={})) == ["1"]


def test_each_vacancy_of_a_slot_has_one_name():
    seen = [
        with_slots(RUNNING, GONE),
        with_slots(RUNNING, GONE, status={"failed": 4}),
        with_slots(RUNNING, ("Failed 1",)),
        with_slots(RUNNING, ("Failed 1", "Failed 1")),
    ]
    told = []
    for simulation in seen:
        again = [Operator(simulation.world).plan().create[0]["metadata"]["name"] for _ in range(2)]
        assert again[0] == again[1]
        told.append(again[0])
    assert len(set(told)) == len(seen)


@pytest.mark.parametrize(
    "job",
    [
        {"status": {}},  # nothing has failed: the Job controller makes the pods right now
        {"spec": {"suspend": True}},
        {"status": {"failed": 3, "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]}},
        {"status": {"failed": 3, "conditions": [{"type": "FailureTarget", "status": "True"}]}},
    ],
)
def test_job_that_does_not_back_off_or_wants_no_pods_gets_none(job: Mapping[str, Any]):
    assert made(with_slots(RUNNING, GONE, **job)) == []


def test_run_that_is_to_be_suspended_gets_no_more_pods():
    simulation = with_slots(RUNNING, GONE)
    simulation.world.edit(suspend=True)
    assert made(simulation) == []


def test_pod_is_the_jobs_own_with_its_slot():
    simulation = with_slots(RUNNING, GONE)
    job = simulation.world.objects[JOB]
    (pod,) = Operator(simulation.world).plan().create
    assert pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    assert pod["metadata"]["labels"][names.SLOT_LABEL] == "1"
    template = job["spec"]["template"]
    assert pod["metadata"]["labels"].items() >= template["metadata"]["labels"].items()
    assert pod["spec"]["hostname"] == "demo-train-1-1"
    (container,) = pod["spec"]["containers"]
    assert container["env"][:-1] == template["spec"]["containers"][0]["env"]
    assert container["env"][-1]["name"] == "JOB_COMPLETION_INDEX"


def test_run_whose_pods_are_deleted_again_and_again_has_them_back_as_soon_as_at_first():
    """The Job itself would wait for 10 to 160 s, and after the resume for what is left of it."""
    simulation = training_run(training__steps=10_000)
    world = simulation.world

    def steps_within(ticks: int) -> None:
        since = world.now
        until_state(simulation, conditions.TRAINING)
        assert world.now - since <= ticks * TICK_SECONDS

    for _ in range(5):
        assert world.document is not None
        key = ObjectKey("Pod", world.document.agents[-1].name)
        world.objects[key] = world.terminating(world.objects[key])
        simulation.tick()  # the pod goes, and its agent with it
        steps_within(3)
    simulation.world.edit(suspend=True)
    until_state(simulation, conditions.SUSPENDED)
    simulation.world.edit(suspend=False)
    steps_within(4)
    assert (world.status.attempt, world.status.budgets.total) == (1, 0)
