"""What `pretrain faults inject` does through the API server, on a real one."""

from __future__ import annotations

import argparse
import asyncio
import shlex

import pytest

from pretrain_operator import injection
from pretrain_operator.cli import faults as command
from pretrain_operator.cli import main
from pretrain_operator.cluster import ApiError, Cluster
from pretrain_operator.injection import Target
from tests.cluster import ControlPlane
from tests.integration.harness import Api, Coordinators, Kubelets, Object, Operator, eventually
from tests.integration.walk import Walk

NODE = "node-3"


@pytest.fixture
def pod(api: Api, kubelets: Kubelets, namespace: str) -> str:
    """On a node whose kubelet lets deleted pods go."""
    account = ("get", "serviceaccount", "default", f"--namespace={namespace}", "--ignore-not-found")
    eventually(lambda: api.kubectl(*account), "service account, which pods need")
    container = {"name": "main", "image": "none"}
    spec = {"nodeName": NODE, "containers": [container], "terminationGracePeriodSeconds": 300}
    metadata = {"name": "trainer", "namespace": namespace}
    api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return "trainer"


def carry_out(control_plane: ControlPlane, namespace: str, *actions: injection.Action) -> None:
    """Each on the pod `trainer`."""

    async def work() -> None:
        options = argparse.Namespace(namespace=namespace, run="demo", seconds=1.0, steps=1)
        async with await Cluster.connect(kubeconfig=str(control_plane.kubeconfig)) as cluster:
            for action in actions:
                target = Target("trainer", NODE, 0)
                await command.carry_out(cluster, options, action, [target])

    asyncio.run(work())


def condition(item: Object | None, kind: str) -> Object:
    assert item is not None
    return next(entry for entry in item["status"]["conditions"] if entry["type"] == kind)


def test_pod_is_marked_and_the_rest_of_its_status_stays(
    control_plane: ControlPlane, api: Api, namespace: str, pod: str
) -> None:
    kind = injection.kind("pod-preempted")
    carry_out(control_plane, namespace, kind.actions[0])
    found = api.get("Pod", namespace, pod)
    assert condition(found, "DisruptionTarget")["reason"] == "PreemptionByScheduler"
    assert found
    assert found["status"]["phase"] == "Pending"


@pytest.mark.parametrize("name", ["pod-deleted", "node-drained"])
def test_pod_is_asked_to_go_with_its_grace(
    control_plane: ControlPlane, api: Api, namespace: str, pod: str, name: str
) -> None:
    before = api.get("Pod", namespace, pod)
    assert before
    carry_out(control_plane, namespace, injection.kind(name).actions[-1])
    after = api.get("Pod", namespace, pod)
    assert after is None or after["metadata"]["deletionGracePeriodSeconds"] == 300


def test_node_is_cordoned_and_called_sick_and_the_undo_lines_take_it_back(
    control_plane: ControlPlane, api: Api, namespace: str
) -> None:
    sick, cordoned = injection.kind("node-gpu-ecc"), injection.kind("node-cordoned")
    carry_out(control_plane, namespace, sick.actions[0], cordoned.actions[0])
    node = api.get("Node", "", NODE)
    assert node
    assert node["spec"]["unschedulable"] is True
    assert condition(node, "GpuMemWatch")["status"] == "True"
    assert condition(node, "Ready")["status"] == "True"

    for kind in (sick, cordoned):
        _kubectl, *arguments = shlex.split(injection.filled(kind.undo, node=NODE))
        api.kubectl(*arguments)
    node = api.get("Node", "", NODE)
    assert node
    assert "unschedulable" not in node["spec"]
    assert condition(node, "GpuMemWatch")["status"] == "False"


def test_exec_in_a_pod_that_does_not_run_says_so(
    control_plane: ControlPlane, namespace: str, pod: str
) -> None:
    with pytest.raises(ApiError, match="exec in trainer") as error:
        carry_out(control_plane, namespace, injection.InPod("worker-sigkill"))
    assert error.value.code >= 400


def test_run_is_refused_until_it_allows_it_and_an_unknown_kind_names_the_known(
    operator: Operator,
    api: Api,
    control_plane: ControlPlane,
    coordinators: Coordinators,
    namespace: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [f"--kubeconfig={control_plane.kubeconfig}", f"--namespace={namespace}"]
    Walk(api, coordinators, namespace).begin()
    assert main(["faults", "inject", "demo", "run-suspended", *arguments]) == 1
    assert "spec.recovery.faultInjection of demo is false" in capsys.readouterr().err
    assert main(["faults", "inject", "demo", "run-suspend", *arguments]) == 1
    assert "did you mean run-suspended? Known are" in capsys.readouterr().err

    api.patch("pretrainrun", namespace, "demo", {"spec": {"recovery": {"faultInjection": True}}})
    assert main(["faults", "inject", "demo", "run-suspended", *arguments]) == 0
    run = api.get("PretrainRun", namespace, "demo")
    assert run
    assert run["spec"]["suspend"] is True
    assert "undo with: kubectl patch pretrainrun demo" in capsys.readouterr().out
