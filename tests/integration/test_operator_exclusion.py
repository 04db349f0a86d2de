"""A broken device on a real control plane: its Node is marked, its pod moves, repair ends it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from pretrain_llm.contract.reports import FaultReport
from pretrain_llm.contract.status import WORKER_EXIT, Incident
from pretrain_operator.cluster import ApiError
from tests.cluster import ControlPlane
from tests.integration.harness import Api, Coordinators, Kubelets, Object, Operator, eventually
from tests.integration.walk import Walk

EXCLUDED = "pretrain.dev/excluded"
VALUES = (
    "--set=settings.nodeExclusion.marks=Taint",
    "--set=settings.nodeExclusion.faultsOfAllRuns=1",
)


def marks(api: Api, name: str) -> set[str]:
    """Keys of a Node's labels and taints that are the operator's."""
    node = api.get("Node", "", name)
    assert node is not None
    taints = [f"taint {taint['key']}" for taint in node["spec"].get("taints", ())]
    labels = node["metadata"].get("labels", {})
    return {key for key in (*labels, *taints) if EXCLUDED in key}


def broken(pod: Object) -> Incident:
    error = "CUDA error: uncorrectable ECC error encountered"
    report = FaultReport(1, 0, time.time(), exit_code=1, error_message=error)
    return Incident(
        round=1,
        time=time.time(),
        evidence=WORKER_EXIT,
        agent=pod["metadata"]["name"],
        slot=0,
        node=pod["spec"]["nodeName"],
        first_fault=report,
        last_step=40,
    )


def test_node_of_a_broken_device_is_left_until_somebody_has_mended_it(
    operator: Operator,
    api: Api,
    control_plane: ControlPlane,
    coordinators: Coordinators,
    kubelets: Kubelets,
    namespace: str,
    tmp_path: Path,
) -> None:
    marking = Operator(api, control_plane, coordinators.url, tmp_path, *VALUES, release="marking")
    walk = Walk(api, coordinators, namespace)
    operator.kill()
    try:
        marking.start()
        walk.to_training()
        bad = walk.pods("training")[0]
        name, uid = bad["spec"]["nodeName"], walk.run["metadata"]["uid"]
        walk.says(41, round=2, incidents=(broken(bad),))
        wanted = {EXCLUDED, f"{EXCLUDED}-from-{uid}", f"taint {EXCLUDED}"}
        eventually(lambda: marks(api, name) == wanted, f"all marks on {name}")

        def asked() -> Object | None:
            found = api.get("Pod", namespace, bad["metadata"]["name"])
            return found if found and found["metadata"].get("deletionTimestamp") else None

        going = eventually(asked, "end of the pod on the marked node")
        with contextlib.suppress(AssertionError, ApiError):  # its kubelet has let it go already
            api.put_status(going, phase="Failed")  # as once the agent has saved and left

        def places() -> set[str]:
            return {pod["spec"]["nodeName"] for pod in walk.pods("training")}

        others = set(kubelets.NODES) - {name}
        eventually(lambda: places() == others, f"pods on {others}")
        (entry,) = walk.status["excludedNodes"]
        assert (entry["name"], walk.status["attempt"]) == (name, 1)
        eventually(lambda: "NodeExcluded" in walk.reasons_of_events(), "the event")
        assert marking.metrics()["pretrain_operator_excluded_nodes"] == 1

        marking.kill()
        marking.start()
        walk.says(60, round=2)
        eventually(lambda: walk.status["training"]["step"] == 60, "step 60 in the status")
        assert marking.api_calls("apply", "delete", "patch") == 0
        assert walk.status["excludedNodes"][0]["until"] == entry["until"]

        api.kubectl("label", "node", name, f"pretrain.dev/repaired-at={int(time.time()) + 1}")
        eventually(lambda: not marks(api, name), f"no mark on {name}", seconds=60)
        eventually(lambda: not walk.status.get("excludedNodes"), "no excluded node", seconds=60)
    finally:
        marking.kill()
        api.kubectl("patch", "node", name, "--type=merge", '-p={"spec": {"taints": null}}')
        operator.start()
