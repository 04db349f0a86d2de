"""An API server in memory, as far as the operator's calls go: `cluster.Cluster` without a server.

It decides nothing. That it answers as a real API server does, conflicts and refusals included, is
held by tests/integration/test_cluster_contract.py. Objects are never changed in place, so that a
copy of a table is cheap.
"""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pretrain_operator.cluster import ApiError, ObjectList
from pretrain_operator.observed import ObjectKey
from pretrain_operator.times import timestamp

Object = Mapping[str, Any]

_DEFAULT_GRACE_SECONDS = 30
Hook = Callable[[], None]
_IMMUTABLE = {"Job": ("template", "completions")}  # of a Job's spec, what the operator writes


def nothing() -> None:
    """What happens around a write where nobody disturbs it."""


def changed(item: Object, **parts: Any) -> dict[str, Any]:
    """A copy with some parts replaced; those that are maps are joined."""
    new = dict(item)
    for name, value in parts.items():
        old = new.get(name)
        new[name] = {**old, **value} if isinstance(value, dict) and isinstance(old, dict) else value
    return new


def key_of(item: Object) -> ObjectKey:
    return ObjectKey(item["kind"], item["metadata"]["name"])


class Table(UserDict[Any, Object]):
    """Objects by key. Whatever is written or deleted, by whom ever, is a new resourceVersion."""

    def __init__(self, namespace: str = "") -> None:
        super().__init__()
        self.namespace = namespace
        self.newest_version = 0
        self.made = 0  # objects so far, for uids
        self._versions: dict[str, int] = {}  # by kind

    def key(self, kind: str, name: str) -> Any:
        """What is in no namespace is found by its name alone."""
        return ObjectKey(kind, name) if self.namespace else name

    def __setitem__(self, key: Any, item: Object) -> None:
        self._touch(item["kind"])
        metadata = {"resourceVersion": str(self.newest_version)}
        if self.namespace:
            metadata["namespace"] = self.namespace
        if "uid" not in item["metadata"]:
            metadata["uid"] = self._uid(key, item["kind"])
        self.data[key] = changed(item, metadata=metadata)

    def __delitem__(self, key: Any) -> None:
        self._touch(self.data[key]["kind"])
        del self.data[key]

    def version_of(self, kind: str) -> int:
        """When an object of this kind was last written or deleted."""
        return self._versions.get(kind, 0)

    def _touch(self, kind: str) -> None:
        self.newest_version += 1
        self._versions[kind] = self.newest_version

    def _uid(self, key: Any, kind: str) -> str:
        if key in self.data:
            return str(self.data[key]["metadata"]["uid"])
        self.made += 1
        return f"uid-{kind}-{self.made}"

    def copy(self) -> Table:
        """The same versions, not new ones."""
        twin = copy.copy(self)
        twin._versions = dict(self._versions)
        return twin


class Store(Protocol):
    """What a stand-in stands on: one namespace, the nodes and the clock."""

    now: float

    def table(self, kind: str) -> Table: ...


def terminating(pod: Object, now: float, grace_seconds: int | None = None) -> Object:
    """A grace period that has begun can only be made shorter."""
    known = pod["metadata"].get("deletionGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
    marks = {
        "deletionTimestamp": pod["metadata"].get("deletionTimestamp") or timestamp(now),
        "deletionGracePeriodSeconds": known if grace_seconds is None else min(known, grace_seconds),
    }
    return changed(pod, metadata=marks)


class ClusterStandIn:
    """The calls of `cluster.Cluster` that a pass makes. None of them ever waits.

    `before_write` and `after_write` are called around each write that changes something; what they
    raise, the caller gets in place of the answer.
    """

    def __init__(
        self, store: Store, *, before_write: Hook = nothing, after_write: Hook = nothing
    ) -> None:
        self.calls: list[str] = []  # that ask for a change, refused ones too
        self._store = store
        self._before_write = before_write
        self._after_write = after_write

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        return self._known(kind, namespace, name)

    async def list(
        self, kind: str, namespace: str | None = None, *, label_selector: str = ""
    ) -> ObjectList:
        """Of selectors, only the name of a label that has to be there."""
        table = self._store.table(kind)
        found = [
            dict(item)
            for item in table.values()
            if item["kind"] == kind
            and (not label_selector or label_selector in item["metadata"].get("labels", {}))
        ]
        return ObjectList(tuple(found), str(table.newest_version))

    async def create(self, body: Object) -> Object:
        self.calls.append(f"create {body['kind']}")
        if self._known_as(body) is not None:
            raise ApiError(409, "AlreadyExists", f"{_words(body)} already exists")
        return self._made(body)

    async def apply(self, body: Object) -> Object:
        self.calls.append(f"apply {body['kind']}")
        known = self._known_as(body)
        uid = body["metadata"].get("uid")
        if known is None and uid is not None:
            raise ApiError(409, "Conflict", f"{_words(body)}: uid mismatch, it is not there")
        if known is not None and uid not in (None, known["metadata"]["uid"]):
            raise ApiError(422, "Invalid", f"{_words(body)}: metadata.uid: field is immutable")
        if known is None:
            applied = {"managedFields": tuple(body["metadata"].get("labels", {}))}
            return self._made(changed(body, metadata=applied))
        for name in _IMMUTABLE.get(body["kind"], ()):
            if body["spec"].get(name) != known["spec"].get(name):
                raise ApiError(422, "Invalid", f"{_words(body)}: spec.{name}: field is immutable")
        is_edited = body.get("spec", {}) != known.get("spec", {})
        generation = known["metadata"].get("generation", 1) + is_edited
        metadata = {**known["metadata"], **body["metadata"], "generation": generation}
        metadata |= _owned_labels(known, body)
        return self._stored({**known, **_without_status(body), "metadata": metadata})

    async def patch(self, body: Object) -> Object:
        """Parts that are maps are joined, one level deep: as far as the operator merges."""
        self.calls.append(f"patch {body['kind']}")
        known = self._required(body)
        version = body["metadata"].get("resourceVersion", known["metadata"]["resourceVersion"])
        if version != known["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", f"{_words(body)} has another resourceVersion")
        return self._stored(changed(known, spec=dict(body["spec"])))

    async def replace_status(self, body: Object) -> Object:
        self.calls.append(f"replace_status {body['kind']}")
        known = self._required(body)
        for name in ("uid", "resourceVersion"):
            if body["metadata"].get(name) != known["metadata"][name]:
                raise ApiError(409, "Conflict", f"{_words(body)} has another {name}")
        return self._stored({**known, "status": body["status"]})

    async def apply_status(self, body: Object) -> Object:
        self.calls.append(f"apply_status {body['kind']}")
        known = self._required(body)
        if body["metadata"].get("uid", known["metadata"]["uid"]) != known["metadata"]["uid"]:
            raise ApiError(422, "Invalid", f"{_words(body)}: metadata.uid: field is immutable")
        return self._stored(changed({"status": {}, **known}, status=dict(body["status"])))

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> Object:
        self.calls.append(f"delete {kind}")
        identity = {"kind": kind, "metadata": {"namespace": namespace, "name": name}}
        known = self._required(identity)
        if uid not in (None, known["metadata"]["uid"]):
            raise ApiError(409, "Conflict", f"{_words(known)} has another uid")
        if known["metadata"].get("finalizers") or (grace_seconds != 0 and _is_on_a_node(known)):
            return self._stored(terminating(known, self._store.now, grace_seconds))
        self._before_write()
        self._remove(known)
        self._after_write()
        return {"kind": "Status", "status": "Success"}

    def _known(self, kind: str, namespace: str | None, name: str) -> Object | None:
        table = self._store.table(kind)
        return None if (namespace or "") != table.namespace else table.get(table.key(kind, name))

    def _known_as(self, body: Object) -> Object | None:
        return self._known(body["kind"], *_place(body))

    def _required(self, body: Object) -> Object:
        known = self._known_as(body)
        if known is None:
            raise ApiError(404, "NotFound", f"{_words(body)} not found")
        return known

    def _made(self, body: Object) -> Object:
        server = {"generation": 1, "creationTimestamp": timestamp(self._store.now)}
        status = {"status": {"phase": "Pending"}} if body["kind"] == "Pod" else {}
        return self._stored(changed(_without_status(body) | status, metadata=server))

    def _stored(self, item: Object) -> Object:
        """As it is now. What changes nothing is no new version, and not written."""
        table = self._store.table(item["kind"])
        key = table.key(item["kind"], item["metadata"]["name"])
        if table.get(key) != item:
            self._before_write()
            table[key] = item
            self._after_write()
        return table[key]

    def _remove(self, item: Object) -> None:
        """And, as the garbage collector does, the pods that it owned."""
        table = self._store.table(item["kind"])
        del table[table.key(item["kind"], item["metadata"]["name"])]
        pods = self._store.table("Pod")
        for key, pod in list(pods.items()):
            if not _is_owned(pod, item["metadata"]["uid"]):
                continue
            if _is_on_a_node(pod) or pod["metadata"].get("finalizers"):
                pods[key] = terminating(pod, self._store.now)
            else:
                del pods[key]


def _owned_labels(known: Object, body: Object) -> dict[str, Any]:
    """Server-side apply: labels that it named last time and names no more go, others stay."""
    ours = known["metadata"].get("managedFields", ())
    others = known["metadata"].get("labels", {}).items()
    named = body["metadata"].get("labels", {})
    labels = {name: value for name, value in others if name not in ours} | named
    return {"labels": labels, "managedFields": tuple(named)}


def _is_owned(item: Object, uid: str) -> bool:
    owners = item["metadata"].get("ownerReferences", ())
    return item["kind"] == "Pod" and any(owner["uid"] == uid for owner in owners)


def _is_on_a_node(item: Object) -> bool:
    """Whether a kubelet has to stop it first: a pod that has not ended."""
    is_ended = item.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return bool(item["kind"] == "Pod" and item["spec"].get("nodeName") and not is_ended)


def _without_status(body: Object) -> dict[str, Any]:
    """As every resource with a status of its own drops it from other writes."""
    return {name: value for name, value in body.items() if name != "status"}


def _place(body: Object) -> tuple[str | None, str]:
    return body["metadata"].get("namespace"), body["metadata"]["name"]


def _words(body: Object) -> str:
    return f"{body['kind']} {body['metadata']['name']}"
