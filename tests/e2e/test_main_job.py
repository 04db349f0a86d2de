"""The main job with faults, on real kubelets: what a user is promised, seen from the outside."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hack.demo import place, report, scenario
from hack.demo.kube import StepError, wait_for

pytestmark = pytest.mark.e2e


def variant(name: str, **spec: Any) -> dict[str, Any]:
    """The demo's run under another name, with parts of its spec replaced; None takes a part out."""
    run = copy.deepcopy(scenario.manifest(scenario.RECIPE))
    run["metadata"]["name"] = name
    for field, value in spec.items():
        if value is None:
            run["spec"].pop(field, None)
        elif isinstance(value, dict):
            run["spec"].setdefault(field, {}).update(value)
        else:
            run["spec"][field] = value
    return run


def started(where: place.Place, run: dict[str, Any]) -> scenario.RunWatch:
    where.kube.apply(run)
    return scenario.RunWatch(where.kube, run["metadata"]["name"], run["metadata"]["namespace"])


def removed(watch: scenario.RunWatch) -> None:
    """Deletes the run and waits until its pods are gone, so that the next test has the cores."""
    watch.kube.run("delete", "pretrainrun", watch.name, "-n", watch.namespace)
    wait_for(
        f"the pods of {watch.name} to go",
        lambda: True if not pods_of(watch) else None,
        timeout_seconds=90,
    )


def pods_of(watch: scenario.RunWatch) -> list[dict[str, Any]]:
    found = watch.kube.get("pods", "-n", watch.namespace, "-l", f"pretrain.dev/run={watch.name}")
    items: list[dict[str, Any]] = found["items"]
    return items


def move(where: place.Place, namespace: str, selector: str, node: str) -> None:
    """Makes the one pod of a Deployment anew there, if it is elsewhere."""
    kube = where.kube

    def is_there() -> bool | None:
        pods = kube.get("pods", "-n", namespace, "-l", selector)["items"]
        live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        nodes = [pod["spec"].get("nodeName") for pod in live if is_ready(pod)]
        return nodes == [node] or None

    if is_there():
        return
    names = [item["metadata"]["name"] for item in kube.get("nodes")["items"]]
    others = [name for name in names if name != node]
    kube.run("cordon", *others)
    try:
        kube.run("delete", "pod", "-n", namespace, "-l", selector)
        wait_for(f"{selector} on {node}", is_there, timeout_seconds=120)
    finally:
        kube.run("uncordon", *others)


def is_ready(pod: scenario.Object) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def coordinator_of(watch: scenario.RunWatch) -> str:
    """A label selector."""
    return f"pretrain.dev/run={watch.name},pretrain.dev/component=coordinator"


def operator_pod(where: place.Place) -> dict[str, Any]:
    found = where.kube.get(
        "pods", "-n", scenario.SYSTEM_NAMESPACE, "-l", "app.kubernetes.io/name=pretrain-operator"
    )["items"]
    live: dict[str, Any] = next(pod for pod in found if "deletionTimestamp" not in pod["metadata"])
    return live


def test_main_job_with_a_killed_worker_ends_in_an_answer(where: place.Place) -> None:
    watch = started(where, scenario.manifest(scenario.RECIPE))
    watch.until_step(50)
    watch.kill_one_worker()
    run = watch.until_succeeded()
    document = report.report(
        run,
        chat={"question": "What is a list?", "answer": watch.ask("What is a list?")},
        operator_rss_bytes=scenario.operator_rss_bytes(where.kube),
        seconds_total=0,
    )
    assert report.shortcomings(document) == []
    assert document["operator_rss_bytes"] < 200_000_000
    assert run["status"]["attempt"] == 1
    removed(watch)


def test_operator_restart_suspension_and_power_off_leave_the_run_whole(where: place.Place) -> None:
    run = variant(
        "power",
        training={"steps": 300},
        nodes={"min": 1},
        checkpoint={"interval": 40, "memory": {"interval": 5}},
        recovery={"shrinkAfterSeconds": 40},  # a pod from a dead node is back before
        postTraining=None,
        serving=None,
    )
    watch = started(where, run)
    watch.until_step(20)
    restart_the_operator(where, watch)
    suspend_and_resume(watch)
    cut_the_coordinators_power(where, watch)
    leave_no_room_for_a_while(watch)
    status = watch.until_succeeded(timeout_seconds=400)["status"]
    assert status["training"]["step"] == 300
    _suspension, lost, left, more = status["incidents"]
    assert (lost["class"], lost["level"]) == ("NodeLost", "NodeReplacement")
    assert lost["restoredFrom"] == "Peer"
    assert lost["stepsLost"] <= 10  # two intervals: a copy may still be on its way
    assert [(item["level"], item["nodes"], item["stepsLost"]) for item in (left, more)] == [
        ("Shrink", 1, 0),
        ("Grow", 2, 0),
    ]
    assert status["budgets"]["total"] == 1  # of the lost node
    assert status["training"]["replayedMaxLossDifference"] == 0
    removed(watch)


def restart_the_operator(where: place.Place, watch: scenario.RunWatch) -> None:
    """The run does not notice."""
    before = scenario.current_step(watch.object())
    name = operator_pod(where)["metadata"]["name"]
    watch.kube.run("delete", "pod", name, "-n", scenario.SYSTEM_NAMESPACE)
    after = watch.until_step(before + 15)
    assert after["status"]["budgets"]["total"] == 0
    assert after["status"]["attempt"] == 1


def suspend_and_resume(watch: scenario.RunWatch) -> None:
    """A checkpoint first, then no pod of the training holds a device; objects of pods that have
    ended may be there for a moment longer.
    """
    before = scenario.current_step(watch.object())
    watch.patch({"suspend": True})
    suspended = watch.until(
        "the suspension",
        lambda run: scenario.condition(run, "Succeeded").get("reason") == "Suspended",
        60,
    )
    phases = {pod["status"]["phase"] for pod in watch.training_pods()}
    assert phases <= {"Succeeded", "Failed"}
    saved = suspended["status"]["checkpoints"]["latest"]["step"]
    assert saved >= before
    watch.patch({"suspend": False})
    watch.until_step(saved + 10)


def cut_the_coordinators_power(where: place.Place, watch: scenario.RunWatch) -> None:
    """Of a node that trains and has the coordinator as well. Its memory is gone: the run goes on
    from the copy that the other member has, and the next coordinator has seen nothing of it.
    """
    assert where.cluster
    host = operator_pod(where)["spec"]["nodeName"]
    victim = next(
        pod["spec"]["nodeName"]
        for pod in watch.training_pods()
        if is_live(pod) and pod["spec"].get("nodeName") not in (None, host)
    )
    move(where, watch.namespace, coordinator_of(watch), victim)
    watch.until_step(scenario.current_step(watch.object()) + 10)
    where.cluster.node(victim).power_off()
    try:
        recovered = watch.until("the recovery", lambda run: len(over(run)) == 1, 200)
        assert recovered["status"]["incidents"][-1]["suspect"]["node"] == victim
    finally:
        where.cluster.node(victim).power_on()
        where.cluster.await_ready()


def leave_no_room_for_a_while(watch: scenario.RunWatch) -> None:
    """No node takes the next pod that goes: the run goes on with the one that is left."""
    last = [pod["metadata"]["name"] for pod in watch.training_pods() if is_live(pod)][-1]
    nodes = [node["metadata"]["name"] for node in watch.kube.get("nodes")["items"]]
    watch.kube.run("cordon", *nodes)
    try:
        watch.kube.run("delete", "pod", last, "-n", watch.namespace, "--wait=false")
        shrunk = watch.until("steps on one node", lambda run: len(over(run)) == 2, 120)
        assert "on 1 of 2 nodes" in scenario.condition(shrunk, "Succeeded")["message"]
    finally:
        watch.kube.run("uncordon", *nodes)


def over(run: scenario.Object) -> list[scenario.Object]:
    """Incidents that the run has recovered from; a suspension is none."""
    found = run["status"].get("incidents", ())
    return [item for item in found if "firstStepSeconds" in item]


def is_live(pod: scenario.Object) -> bool:
    return pod["status"]["phase"] not in ("Succeeded", "Failed")


BAD_INPUTS = {
    "no-text": (
        {"data": {"sources": [{"name": "none", "path": "corpus/none.jsonl"}]}},
        "BadInput",
        ["spec.data.sources[0].path", "corpus/none.jsonl"],
    ),
    "no-image": (
        {"data": {"template": {"image": "registry.invalid/nothing:1"}}},
        "ImagePullFailed",
        ["registry.invalid/nothing:1"],
    ),
    "no-claim": (
        {"storage": {"claimName": "not-there", "create": None}},
        "StorageNotFound",
        ["spec.storage.claimName", "not-there"],
    ),
    "no-memory": (
        {"nodes": {"template": {"resources": {"limits": {"memory": "450Mi"}}}}},
        "OutOfMemory",
        ["memory"],
    ),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_says_field_and_remedy(where: place.Place, name: str) -> None:
    spec, reason, words = BAD_INPUTS[name]
    watch = started(where, variant(name, postTraining=None, serving=None, **spec))

    def told() -> scenario.Object | None:
        found = scenario.condition(watch.object(), "Succeeded")
        return found if found.get("reason") == reason else None

    try:
        summary = wait_for(f"{name} to be {reason}", told, timeout_seconds=150)
    except StepError as error:
        raise AssertionError(f"{error}; the run says {watch.object()['status']}") from error
    for word in words:
        assert word in summary["message"]
    removed(watch)
