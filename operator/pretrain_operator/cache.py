"""What the operator last saw of each object. Passes read here, never the API server.

Two streams write into it: the watches, and the answers to the operator's own writes, which are
usually ahead of the watches. One rule joins them: **the newest resourceVersion wins** (they are
ordered numbers, promised since Kubernetes 1.35 and true before). So a pass always sees at least
what the operator itself has written, and an event that is late changes nothing. An object that is
gone is remembered by its uid, so that neither a late event nor an older listing brings it back.

Nothing is ever fetched or decided here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from . import api
from .names import RUN_LABEL
from .observed import KubernetesObject, ObjectKey

_REMEMBERED_UIDS = 20_000  # as many as can go while a listing is under way; 2 MB
_NODE_METADATA = ("name", "uid", "resourceVersion", "labels")


class RunKey(NamedTuple):
    namespace: str
    name: str


class _Id(NamedTuple):
    kind: str
    namespace: str
    name: str


class ObjectCache:
    """Runs, their children and the nodes. Each method that changes it says whose run is touched."""

    def __init__(self) -> None:
        self._objects: dict[_Id, KubernetesObject] = {}
        self._children: defaultdict[RunKey, set[_Id]] = defaultdict(set)
        self._gone_uids: dict[str, None] = {}  # in order of going

    def run(self, key: RunKey) -> KubernetesObject | None:
        return self._objects.get(_Id(api.KIND, *key))

    def runs(self) -> list[RunKey]:
        return [RunKey(*id_[1:]) for id_ in self._objects if id_.kind == api.KIND]

    def children(self, key: RunKey) -> dict[ObjectKey, KubernetesObject]:
        ids = self._children.get(key, ())
        return {ObjectKey(id_.kind, id_.name): self._objects[id_] for id_ in ids}

    def nodes(self, names: Iterable[str]) -> dict[str, KubernetesObject]:
        found = ((name, self._objects.get(_Id("Node", "", name))) for name in names)
        return {name: node for name, node in found if node is not None}

    def all_nodes(self) -> list[KubernetesObject]:
        return [body for id_, body in self._objects.items() if id_.kind == "Node"]

    def put(self, body: KubernetesObject) -> set[RunKey]:
        """Takes in a state of an object, unless a newer one is known. Returns the runs to wake."""
        id_, known = _id(body), self._objects.get(_id(body))
        if body["metadata"]["uid"] in self._gone_uids or not _is_newer(body, known):
            return set()
        kept = _trimmed(body)
        self._objects[id_] = kept
        if (owner := _owner(kept)) is not None and id_.kind != api.KIND:
            self._children[owner].add(id_)
        if id_.kind == "Node":
            return self._runs_on(id_.name) if _node_facts(kept) != _node_facts(known) else set()
        return {owner} if owner else set()

    def remove(self, body: KubernetesObject) -> set[RunKey]:
        """This very object is gone, the watch or the server says. Returns the runs to wake."""
        self._gone_uids[body["metadata"]["uid"]] = None
        if len(self._gone_uids) > _REMEMBERED_UIDS:
            del self._gone_uids[next(iter(self._gone_uids))]
        return self._forget(body)

    def replace(
        self, kind: str, namespace: str | None, listed: Iterable[KubernetesObject], version: str
    ) -> set[RunKey]:
        """Makes all objects of a kind those of a list. Returns the runs to wake.

        An object that the list lacks is gone, unless it was made after the list was.
        """
        objects = list(listed)
        present = {_id(body) for body in objects}
        absent = [
            body
            for id_, body in self._objects.items()
            if id_.kind == kind
            and id_ not in present
            and namespace in (None, id_.namespace)
            and _version(body) <= int(version)
        ]
        touched: set[RunKey] = set()
        return touched.union(*map(self.put, objects), *map(self.remove, absent))

    def _forget(self, body: KubernetesObject) -> set[RunKey]:
        id_ = _id(body)
        known = self._objects.get(id_)
        if known is None or known["metadata"]["uid"] != body["metadata"]["uid"]:
            return set()  # a newer object of the same name is there
        del self._objects[id_]
        if id_.kind == "Node":
            return self._runs_on(id_.name)
        owner = _owner(known)
        if owner is None:
            return set()
        if id_ in self._children[owner]:
            self._children[owner].remove(id_)
            if not self._children[owner]:
                del self._children[owner]
        return {owner}

    def _runs_on(self, node: str) -> set[RunKey]:
        return {
            run
            for run, ids in self._children.items()
            if any(self._objects[id_].get("spec", {}).get("nodeName") == node for id_ in ids)
        }


def _id(body: KubernetesObject) -> _Id:
    metadata = body["metadata"]
    return _Id(body["kind"], metadata.get("namespace", ""), metadata["name"])


def _owner(body: KubernetesObject) -> RunKey | None:
    """The run that an object belongs to by its label; a run belongs to itself."""
    metadata = body["metadata"]
    if body["kind"] == "Node":
        return None
    is_run = body["kind"] == api.KIND
    name = metadata["name"] if is_run else metadata.get("labels", {}).get(RUN_LABEL)
    return RunKey(metadata["namespace"], name) if name else None


def _version(body: KubernetesObject) -> int:
    return int(body["metadata"]["resourceVersion"])


def _is_newer(body: KubernetesObject, known: KubernetesObject | None) -> bool:
    return known is None or _version(body) > _version(known)


def _trimmed(body: KubernetesObject) -> KubernetesObject:
    """Without what no decision reads: field ownership, and of nodes all but their conditions."""
    metadata: Mapping[str, Any] = body["metadata"]
    if body["kind"] == "Node":
        return {
            "kind": "Node",
            "metadata": {field: metadata.get(field) for field in _NODE_METADATA},
            "spec": {
                field: body.get("spec", {}).get(field) for field in ("taints", "unschedulable")
            },
            "status": {"conditions": body.get("status", {}).get("conditions", [])},
        }
    slim = {field: value for field, value in metadata.items() if field != "managedFields"}
    return {**body, "metadata": slim}


def _node_facts(node: KubernetesObject | None) -> object:
    """What of a node matters to a run: not the heartbeat times in its conditions."""
    if node is None:
        return None
    conditions = {item["type"]: item["status"] for item in node["status"]["conditions"]}
    return conditions, node["spec"], _own_labels(node)


def _own_labels(node: KubernetesObject) -> dict[str, str]:
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    return {name: value for name, value in labels.items() if name.startswith(api.GROUP)}
