"""The stand-in that the unit tests run the operator on answers as a real API server does."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pretrain_operator import api as run_api
from pretrain_operator.cluster import ApiError, Cluster
from tests.cluster import ControlPlane
from tests.unit.cluster_stand_in import ClusterStandIn
from tests.unit.runs import demo_body
from tests.unit.world import World, changed

from . import crd_client
from .harness import Api, eventually

Object = Mapping[str, Any]
RUN_LABEL = "pretrain.dev/run"

WANTED = {
    "create run": "made, generation 1",
    "create run again": "409",
    "create run, status in it": "dropped",
    "replace status": "new version",
    "replace status by the same": "same version",
    "replace status, spec changed too": "spec and generation kept",
    "replace status of an older version": "409",
    "replace status of a missing run": "404",
    "get missing": "None",
    "apply": "made",
    "apply the same": "same version",
    "apply another value": "new version",
    "apply without a label": "label gone, others' kept",
    "list by label": "without",
    "delete another uid": "409",
    "delete": "gone",
    "delete missing": "404",
    "apply after deletion": "another uid",
    "apply job": "generation 1",
    "apply job resumed": "generation 2",
    "apply job, another template": "422",
    "delete job": "gone",
    "delete pod on a node": "on its way out, 30 s",
    "apply pod status, another uid": "422",
    "apply pod status": "Failed, node kept",
    "apply status of a missing pod": "404",
    "delete pod by force": "gone",
    "delete pod without a node": "gone",
    "apply node labels": "ours added, others' kept",
    "apply node without labels": "ours gone, others' kept",
    "apply node, another uid": "422",
    "apply missing node": "409",
    "patch node taints": "new version, labels kept",
    "patch node of an older version": "409",
    "create event": "made",
    "create event again": "409",
}


@dataclass
class Script:
    """The same calls for both; `said` is what each came to."""

    cluster: Any
    namespace: str
    said: dict[str, str] = field(default_factory=dict)

    def metadata(self, name: str, **parts: Any) -> dict[str, Any]:
        return {"name": name, "namespace": self.namespace, **parts}

    async def code(self, call: Awaitable[Any]) -> str:
        try:
            await call
        except ApiError as error:
            return str(error.code)
        return "accepted"

    async def is_there(self, kind: str, name: str) -> str:
        found = await self.cluster.get(kind, self.namespace, name)
        return "gone" if found is None else "there"

    async def runs(self) -> None:
        body = changed(
            demo_body(),
            metadata={"name": "one", "namespace": self.namespace},
            status={"attempt": 7},
        )
        for server_made in ("uid", "creationTimestamp", "generation"):
            del body["metadata"][server_made]
        made = await self.cluster.create(body)
        self.said["create run"] = f"made, generation {made['metadata']['generation']}"
        self.said["create run again"] = await self.code(self.cluster.create(body))
        self.said["create run, status in it"] = "kept" if made.get("status") else "dropped"
        first = await self.cluster.replace_status({**made, "status": {"attempt": 1}})
        self.said["replace status"] = _version(made, first)
        again = await self.cluster.replace_status({**first, "status": {"attempt": 1}})
        self.said["replace status by the same"] = _version(first, again)
        other = copy.deepcopy(again)
        other["spec"]["suspend"], other["status"] = True, {"attempt": 2}
        kept = await self.cluster.replace_status(other)
        is_kept = (kept["spec"], kept["metadata"]["generation"]) == (made["spec"], 1)
        self.said["replace status, spec changed too"] = (
            "spec and generation kept"
            if is_kept and kept["status"] == {"attempt": 2}
            else "changed"
        )
        stale = self.cluster.replace_status({**made, "status": {"attempt": 3}})
        self.said["replace status of an older version"] = await self.code(stale)
        missing = changed(kept, metadata={"name": "missing"})
        self.said["replace status of a missing run"] = await self.code(
            self.cluster.replace_status(missing)
        )
        found = await self.cluster.get(run_api.KIND, self.namespace, "missing")
        self.said["get missing"] = str(found)

    def config(self, value: str, **labels: str) -> Object:
        metadata = self.metadata("one", labels=labels)
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": value}}

    async def children(self) -> None:
        apply = self.cluster.apply
        made = await apply(self.config("1", **{RUN_LABEL: "one", "other": "x"}))
        self.said["apply"] = "made" if made["metadata"]["uid"] else ""
        again = await apply(self.config("1", **{RUN_LABEL: "one", "other": "x"}))
        self.said["apply the same"] = _version(made, again)
        edited = await apply(self.config("2", **{RUN_LABEL: "one", "other": "x"}))
        self.said["apply another value"] = _version(made, edited)
        less = await apply(self.config("2", other="x"))
        is_less = less["metadata"]["labels"] == {"other": "x"}
        self.said["apply without a label"] = "label gone, others' kept" if is_less else "kept"
        listed = await self.cluster.list("ConfigMap", self.namespace, label_selector=RUN_LABEL)
        names = [item["metadata"]["name"] for item in listed.items]
        self.said["list by label"] = "with" if "one" in names else "without"
        place, uid = ("ConfigMap", self.namespace, "one"), made["metadata"]["uid"]
        wrong = self.cluster.delete(*place, uid="00000000-0000-0000-0000-000000000000")
        self.said["delete another uid"] = await self.code(wrong)
        await self.cluster.delete(*place, uid=uid)
        self.said["delete"] = await self.is_there("ConfigMap", "one")
        self.said["delete missing"] = await self.code(self.cluster.delete(*place))
        anew = await apply(self.config("2"))
        self.said["apply after deletion"] = (
            "another uid" if anew["metadata"]["uid"] != uid else "the same uid"
        )

    def pod_spec(self, image: str) -> dict[str, Any]:
        return {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}

    async def jobs(self) -> None:
        def job(image: str, suspend: bool) -> Object:
            template = {"spec": self.pod_spec(image)}
            spec = {"suspend": suspend, "template": template}
            return {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": self.metadata("one"),
                "spec": spec,
            }

        made = await self.cluster.apply(job("none.invalid/a:1", True))
        self.said["apply job"] = f"generation {made['metadata']['generation']}"
        resumed = await self.cluster.apply(job("none.invalid/a:1", False))
        self.said["apply job resumed"] = f"generation {resumed['metadata']['generation']}"
        other = self.cluster.apply(job("none.invalid/b:1", False))
        self.said["apply job, another template"] = await self.code(other)
        await self.cluster.delete("Job", self.namespace, "one", uid=made["metadata"]["uid"])
        self.said["delete job"] = await self.is_there("Job", "one")

    def pod(self, name: str, **spec: str) -> Object:
        body = {**self.pod_spec("none.invalid/a:1"), **spec}
        if not spec:  # nothing may bind it meanwhile
            body["schedulingGates"] = [{"name": "example.test/never"}]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": self.metadata(name), "spec": body}

    def failed(self, name: str, uid: str) -> Object:
        metadata = self.metadata(name, uid=uid)
        status = {"phase": "Failed"}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}

    async def pods(self) -> None:
        pod = await self.cluster.create(self.pod("one", nodeName="nowhere"))
        place, uid = ("Pod", self.namespace, "one"), pod["metadata"]["uid"]
        left = await self.cluster.delete(*place, uid=uid)
        seconds = left["metadata"].get("deletionGracePeriodSeconds")
        is_leaving = left["kind"] == "Pod" and left["metadata"].get("deletionTimestamp")
        self.said["delete pod on a node"] = (
            f"on its way out, {seconds} s" if is_leaving else left["kind"]
        )
        other = "00000000-0000-0000-0000-000000000000"
        apply_status = self.cluster.apply_status
        self.said["apply pod status, another uid"] = await self.code(
            apply_status(self.failed("one", other))
        )
        failed = await apply_status(self.failed("one", uid))
        self.said["apply pod status"] = (
            f"{failed['status']['phase']}, node "
            f"{'kept' if failed['spec']['nodeName'] == 'nowhere' else 'lost'}"
        )
        self.said["apply status of a missing pod"] = await self.code(
            apply_status(self.failed("missing", other))
        )
        await self.cluster.delete(*place, uid=uid, grace_seconds=0)
        self.said["delete pod by force"] = await self.is_there("Pod", "one")
        await self.cluster.create(self.pod("two"))
        await self.cluster.delete("Pod", self.namespace, "two")
        self.said["delete pod without a node"] = await self.is_there("Pod", "two")

    async def nodes(self) -> None:
        name = f"{self.namespace}-node"
        made = await self.cluster.create(_node(name, uid=None, other="x"))
        uid, apply = made["metadata"]["uid"], self.cluster.apply
        marked = await apply(_node(name, uid=uid, ours="y"))
        is_added = {"other", "ours"} <= marked["metadata"]["labels"].keys()
        self.said["apply node labels"] = "ours added, others' kept" if is_added else "lost"
        less = await apply(_node(name, uid=uid))
        is_less = "other" in less["metadata"]["labels"] and "ours" not in less["metadata"]["labels"]
        self.said["apply node without labels"] = "ours gone, others' kept" if is_less else "kept"
        other = "00000000-0000-0000-0000-000000000000"
        self.said["apply node, another uid"] = await self.code(apply(_node(name, uid=other)))
        missing = _node(f"{name}-missing", uid=other)
        self.said["apply missing node"] = await self.code(apply(missing))
        taint = {"key": "example.test/a", "effect": "NoSchedule"}
        seen, body, tainted = await self.tainted(_node(name, uid=uid), taint)
        is_kept = "other" in tainted["metadata"]["labels"] and taint in tainted["spec"]["taints"]
        self.said["patch node taints"] = f"{_version(seen, tainted)}, labels " + (
            "kept" if is_kept else "lost"
        )
        self.said["patch node of an older version"] = await self.code(self.cluster.patch(body))
        await self.cluster.delete("Node", "", name)

    async def tainted(
        self, node: dict[str, Any], taint: dict[str, str]
    ) -> tuple[Object, dict[str, Any], Object]:
        """The Node before, the patch, the Node after. Controllers write to a new Node, too, so it
        is looked at again where it has changed meanwhile.
        """
        for _ in range(20):
            seen = await self.cluster.apply(node)
            name, version = seen["metadata"]["name"], seen["metadata"]["resourceVersion"]
            body = changed(_node(name), spec={"taints": [taint]})
            body["metadata"] = {"name": name, "resourceVersion": version}
            try:
                return seen, body, await self.cluster.patch(body)
            except ApiError as error:
                if not error.is_conflict:
                    raise
        raise AssertionError("controllers write to the Node without end")

    async def events(self) -> None:
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": self.metadata("one"),
            "involvedObject": {"kind": run_api.KIND, "name": "one", "namespace": self.namespace},
            "reason": "Told",
            "type": "Normal",
        }
        made = await self.cluster.create(event)
        self.said["create event"] = "made" if made["metadata"]["uid"] else ""
        self.said["create event again"] = await self.code(self.cluster.create(event))

    async def run(self) -> dict[str, str]:
        await self.runs()
        await self.children()
        await self.jobs()
        await self.pods()
        await self.nodes()
        await self.events()
        return self.said


def _node(name: str, uid: str | None = None, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels} | ({"uid": uid} if uid else {})
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}


def _version(before: Object, after: Object) -> str:
    is_same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    return "same version" if is_same else "new version"


def test_stand_in_and_api_server_answer_the_same_calls_alike(
    control_plane: ControlPlane, api: Api, namespace: str
) -> None:
    crd_client.install(control_plane)
    account = ("get", "serviceaccount", "default", f"--namespace={namespace}", "--ignore-not-found")
    eventually(lambda: api.kubectl(*account), "service account, which pods need")

    async def answers_of_the_server() -> dict[str, str]:
        kubeconfig = str(control_plane.kubeconfig)
        async with await Cluster.connect(kubeconfig=kubeconfig) as cluster:
            return await Script(cluster, namespace).run()

    world = World(changed(demo_body(), metadata={"namespace": namespace}))
    assert asyncio.run(Script(ClusterStandIn(world), namespace).run()) == WANTED
    assert asyncio.run(answers_of_the_server()) == WANTED
