"""A store that behaves like the API server as far as the operator's writes go, and an operator that
can be killed at any of them. Objects are never changed in place, so a copy of a world is cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pretrain_llm.contract.status import StatusDocument
from pretrain_operator.api.parse import run_from_object
from pretrain_operator.api.status import RunStatus
from pretrain_operator.observed import ObjectKey, Observed
from pretrain_operator.plan import plan
from pretrain_operator.planned import Deletion, Event, Plan
from pretrain_operator.settings import Settings
from pretrain_operator.times import timestamp

Object = Mapping[str, Any]

IMAGES = {
    component: {"image": f"example/{component}:1"}
    for component in ("data", "training", "export", "postTraining", "serving")
}
SETTINGS = Settings.model_validate({"templates": IMAGES})
START = 1_790_000_000.0


def changed(item: Object, **parts: Any) -> dict[str, Any]:
    """A copy with some parts replaced; those that are maps are joined."""
    new = dict(item)
    for name, value in parts.items():
        old = new.get(name)
        new[name] = {**old, **value} if isinstance(value, dict) and isinstance(old, dict) else value
    return new


def key_of(item: Object) -> ObjectKey:
    return ObjectKey(item["kind"], item["metadata"]["name"])


@dataclass
class World:
    """One run, its children, the nodes and the clock."""

    body: Object
    objects: dict[ObjectKey, Object] = field(default_factory=dict)
    nodes: dict[str, Object] = field(default_factory=dict)
    events: dict[str, Event] = field(default_factory=dict)
    document: StatusDocument | None = None
    now: float = START
    made: int = 0  # objects so far, for uids

    def copy(self) -> World:
        return replace(
            self, objects=dict(self.objects), nodes=dict(self.nodes), events=dict(self.events)
        )

    @property
    def status(self) -> RunStatus:
        return run_from_object(self.body).status

    @property
    def run_name(self) -> str:
        return str(self.body["metadata"]["name"])

    def observed(self) -> Observed:
        used = {item["spec"].get("nodeName") for item in self.of_kind("Pod")}
        nodes = {name: node for name, node in self.nodes.items() if name in used}
        return Observed(self.now, dict(self.objects), nodes, self.document)

    def of_kind(self, kind: str) -> list[Object]:
        return [item for key, item in sorted(self.objects.items()) if key.kind == kind]

    def edit(self, **parts: Any) -> None:
        """What a user does to the spec."""
        generation = self.body["metadata"]["generation"] + 1
        self.body = changed(
            self.body,
            metadata={"generation": generation},
            spec=changed(self.body["spec"], **parts),
        )

    # What the operator does

    def commit(self, status: RunStatus) -> None:
        document = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.body = {**self.body, "status": document}

    def apply(self, desired: Object) -> None:
        key = key_of(desired)
        old = self.objects.get(key)
        if old is None:
            self.objects[key] = self._created(desired)
            return
        new_spec = desired.get("spec", {})
        if key.kind == "Job":
            assert new_spec["template"] == old["spec"]["template"], f"{key}: immutable"
        generation = old["metadata"]["generation"] + (new_spec != old.get("spec", {}))
        metadata = {**old["metadata"], **desired["metadata"], "generation": generation}
        self.objects[key] = {**old, **desired, "metadata": metadata}

    def _created(self, desired: Object) -> Object:
        self.made += 1
        server = {
            "uid": f"uid-{self.made}",
            "generation": 1,
            "creationTimestamp": timestamp(self.now),
        }
        return changed(desired, metadata=server)

    def delete(self, deletion: Deletion) -> None:
        item = self.objects.get(deletion.key)
        if item is None or (deletion.uid and item["metadata"]["uid"] != deletion.uid):
            return
        if deletion.key.kind == "Pod" and deletion.grace_seconds != 0:
            self.objects[deletion.key] = self.terminating(item)
            return
        del self.objects[deletion.key]
        uid = item["metadata"]["uid"]
        for pod in self.of_kind("Pod"):
            if any(owner["uid"] == uid for owner in pod["metadata"]["ownerReferences"]):
                self.objects[key_of(pod)] = self.terminating(pod)

    def terminating(self, pod: Object) -> Object:
        if pod["metadata"].get("deletionTimestamp"):
            return pod
        return changed(pod, metadata={"deletionTimestamp": timestamp(self.now)})

    def tell(self, event: Event) -> None:
        self.events.setdefault(event.key, event)


class KilledError(Exception):
    """The operator's process is gone."""


@dataclass
class Operator:
    """The order of reconcile.py: commit, delete, apply, tell. `on_write` may raise KilledError."""

    world: World
    settings: Settings = SETTINGS
    on_write: Callable[[str], None] = lambda _moment: None
    told: set[str] = field(default_factory=set)

    def plan(self) -> Plan:
        return plan(run_from_object(self.world.body), self.world.observed(), self.settings)

    def settle(self) -> None:
        """Passes until one writes nothing. The clock stands still."""
        for _ in range(10):
            if not self.one_pass():
                return
        raise AssertionError("no fixed point after 10 passes")

    def one_pass(self) -> int:
        """Returns the number of writes, but for events."""
        decided = self.plan()
        writes = 0
        if decided.status != self.world.status:
            self._write(lambda: self.world.commit(decided.status))
            writes += 1
        for deletion in decided.delete:
            self._write(lambda deletion=deletion: self.world.delete(deletion))
        for desired in decided.apply:
            self._write(lambda desired=desired: self.world.apply(desired))
        for event in decided.events:
            if event.key not in self.told:
                self._write(lambda event=event: self.world.tell(event))
                self.told.add(event.key)
        return writes + len(decided.delete) + len(decided.apply)

    def _write(self, act: Callable[[], None]) -> None:
        self.on_write("before")
        act()
        self.on_write("after")
