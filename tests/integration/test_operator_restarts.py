"""The operator dies, others meddle, writes collide: the run does not notice."""

from __future__ import annotations

import time

import pytest

from pretrain_llm.contract import exit_codes
from pretrain_llm.contract.results import StageError
from tests.integration.harness import (
    Api,
    Coordinators,
    Kubelets,
    Object,
    Operator,
    eventually,
)
from tests.integration.walk import Walk, demo_run


@pytest.fixture
def walk(operator: Operator, api: Api, coordinators: Coordinators, namespace: str) -> Walk:
    return Walk(api, coordinators, namespace)


def slot_of(pod: Object) -> str:
    slot: str = pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
    return slot


def uids(walk: Walk) -> set[str]:
    kinds = ("Job", "Deployment", "Service", "ConfigMap", "Pod")
    children = (
        body for kind in kinds for body in walk.api.list(kind, walk.namespace, run=walk.name)
    )
    return {body["metadata"]["uid"] for body in children}


def test_operator_killed_and_started_again_touches_no_child(walk: Walk, operator: Operator) -> None:
    walk.to_training()
    before = uids(walk)
    operator.kill()
    walk.says(80)  # training goes on without it
    operator.start()
    eventually(lambda: walk.status["training"]["step"] == 80, "step 80 in the status")
    walk.until_state("Training")
    assert uids(walk) == before
    assert operator.api_calls("apply", "delete") == 0
    assert walk.status["attempt"] == 1


def test_stage_that_ends_while_the_operator_is_away_is_taken_up(
    walk: Walk, operator: Operator
) -> None:
    walk.begin()
    walk.until_pods("data")
    operator.kill()
    walk.finish("data", "Data")
    operator.start()
    walk.until_pods("training", 2)


def test_operator_asked_to_stop_ends_cleanly_within_seconds(operator: Operator) -> None:
    try:
        assert operator.stop() == 0
    finally:
        operator.start()


def test_run_made_under_the_name_of_a_stopped_one_does_not_take_its_verdict(walk: Walk) -> None:
    walk.begin()
    walk.fail("data", StageError("not there", "InputError", exit_codes.BAD_INPUT))
    walk.until_state("BadInput")
    before = uids(walk)
    walk.api.delete("PretrainRun", walk.namespace, walk.name)
    walk.api.create(demo_run(walk.namespace, walk.name))
    # The garbage collector may have to hear of this kind first: it looks every 30 s.
    eventually(lambda: not before & uids(walk), "the first run's children are gone", 100.0)
    walk.until_pods("data")
    walk.until_state("PreparingData")
    job = walk.job("data")
    assert job
    assert job["metadata"]["uid"] not in before


def test_child_deleted_by_hand_comes_back(walk: Walk) -> None:
    walk.to_training()
    walk.api.delete("Service", walk.namespace, "demo-coordinator")
    eventually(
        lambda: walk.api.get("Service", walk.namespace, "demo-coordinator"), "the Service again"
    )


def test_pod_on_a_lost_node_is_let_go_by_force(
    walk: Walk, kubelets: Kubelets, operator: Operator
) -> None:
    walk.to_training()
    pod = walk.pods("training")[0]
    node, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]
    kubelets.report(node, "Unknown")
    try:
        # What the taint manager does once the pod's toleration has run out.
        walk.api.delete("Pod", walk.namespace, pod["metadata"]["name"])

        def is_gone() -> bool:
            found = walk.api.list("Pod", walk.namespace, run=walk.name)
            return all(body["metadata"]["uid"] != uid for body in found)

        eventually(is_gone, "end of the pod on the lost node")
        walk.until_pods("training", 2)
        assert operator.log.read_text().count(f"deleted Pod {pod['metadata']['name']}") == 1
    finally:
        kubelets.report(node, "True")


def likeness(pod: Object) -> Object:
    """What the Job controller wrote into a pod, or should have: the rest is of one pod alone."""
    metadata, spec = pod["metadata"], pod["spec"]
    (owner,) = metadata["ownerReferences"]
    own = ("nodeName", "volumes", "containers")
    (container,) = spec["containers"]
    return {
        **{name: metadata[name] for name in ("labels", "annotations", "finalizers")},
        "owner": {name: owner[name] for name in ("kind", "name", "uid", "controller")},
        "spec": {name: value for name, value in spec.items() if name not in own},
        "environment": container["env"],
    }


def test_pods_of_a_job_that_backs_off_are_replaced_at_once(walk: Walk) -> None:
    """After two failed pods the Job itself waits for 20 s, after three for 40 s."""
    walk.to_training()
    first = {slot_of(pod): likeness(pod) for pod in walk.pods("training")}

    def end(count: int) -> None:
        for pod in walk.pods("training")[:count]:
            walk.end_pod(pod, code=75)
        ended_at = time.monotonic()
        walk.until_pods("training", 2)
        assert time.monotonic() - ended_at < 15.0  # in fact at once; the Job alone: after 20
        walk.start("training", 2)

    end(2)
    assert {slot_of(pod): likeness(pod) for pod in walk.pods("training")} == first
    end(1)

    def counted() -> bool:
        status = (walk.job("train-1") or {}).get("status", {})
        return (status.get("ready"), status.get("failed")) == (2, 3)

    # The Job controller may tell nothing before it ceases to back off.
    eventually(counted, "3 failed pods and 2 ready ones in the Job's status", seconds=60)
    assert len(walk.pods("training")) == 2
    walk.finish_training()
    walk.until_state("Exporting")


def test_child_scaled_by_hand_is_scaled_back(walk: Walk) -> None:
    walk.to_training()
    walk.api.patch("deployment", walk.namespace, "demo-coordinator", {"spec": {"replicas": 0}})

    def replicas() -> bool:
        found = walk.api.get("Deployment", walk.namespace, "demo-coordinator")
        return bool(found and found["spec"]["replicas"] == 1)

    eventually(replicas, "one replica again")


def test_others_writes_to_the_run_do_not_lose_the_operators_status(walk: Walk) -> None:
    walk.to_training()
    for number in range(20):  # each makes the operator's copy of the run old
        labels: Object = {"metadata": {"labels": {"touched": str(number)}}}
        walk.api.patch("pretrainrun", walk.namespace, walk.name, labels)
        walk.says(60 + number)
    walk.says(99)
    eventually(lambda: walk.status["training"]["step"] == 99, "step 99 in the status")
    assert walk.run["metadata"]["labels"] == {"touched": "19"}
