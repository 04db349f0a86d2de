"""One run's namespace with its clock, and the real operator on it: `reconcile.Reconciler` with its
cache, on a stand-in of the API server and of the coordinator. No operator code is written again.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from operator import itemgetter
from typing import Any, TypeVar

from pretrain_llm.contract.status import StatusDocument
from pretrain_operator import api
from pretrain_operator.api.parse import run_from_object
from pretrain_operator.api.status import RunStatus
from pretrain_operator.cache import ObjectCache, RunKey
from pretrain_operator.cluster import RESOURCES
from pretrain_operator.marking import NodeMarker
from pretrain_operator.metrics import Metrics
from pretrain_operator.names import RUN_LABEL
from pretrain_operator.observed import Observed
from pretrain_operator.plan import plan
from pretrain_operator.planned import Event, Plan
from pretrain_operator.reconcile import Reconciler
from pretrain_operator.settings import Settings
from pretrain_operator.times import epoch_seconds

from .cluster_stand_in import ClusterStandIn, Hook, Object, Table, changed, key_of, terminating

T = TypeVar("T")

IMAGES = {
    component: {"image": f"example/{component}:1"}
    for component in ("data", "training", "export", "postTraining", "serving")
}
SETTINGS = Settings.model_validate({"templates": IMAGES})
START = 1_790_000_000.0
METRICS = Metrics()  # makes no decision; 1 ms to set up
_WATCHED = tuple(kind for kind in RESOURCES if kind not in ("Event", "PersistentVolumeClaim"))
_UNLABELLED = (api.KIND, "Node")


def done(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError(f"{coroutine} waits for something")


class World:
    """One run, its children, the nodes and the clock: the store of a ClusterStandIn."""

    def __init__(self, body: Object) -> None:
        self.now = START
        self.document: StatusDocument | None = None
        namespace = body["metadata"]["namespace"]
        self.objects = Table(namespace)  # children, and the claim that the run's storage names
        self._runs, self._events, self._nodes = Table(namespace), Table(namespace), Table()
        self.body = body

    def copy(self) -> World:
        twin = World(self.body)
        twin.now, twin.document, twin.objects = self.now, self.document, self.objects.copy()
        twin._runs, twin._events = self._runs.copy(), self._events.copy()
        twin._nodes = self._nodes.copy()
        return twin

    def table(self, kind: str) -> Table:
        others = {api.KIND: self._runs, "Event": self._events, "Node": self._nodes}
        return others.get(kind, self.objects)

    @property
    def body(self) -> Object:
        (body,) = self._runs.values()
        return body

    @body.setter
    def body(self, body: Object) -> None:
        self._runs[key_of(body)] = body

    @property
    def nodes(self) -> Table:
        return self._nodes

    @nodes.setter
    def nodes(self, nodes: Mapping[str, Object]) -> None:
        self._nodes.clear()
        self._nodes.update(nodes)

    @property
    def events(self) -> dict[str, Event]:
        """What a user reads of them, by name."""
        return {
            key.name: Event(
                key.name,
                body["type"],
                body["reason"],
                body["message"],
                epoch_seconds(body["firstTimestamp"]),
            )
            for key, body in self._events.items()
        }

    @property
    def status(self) -> RunStatus:
        return run_from_object(self.body).status

    @property
    def run_name(self) -> str:
        return str(self.body["metadata"]["name"])

    def shown(self) -> object:
        """All that anybody can see, but for the numbers of its versions and its order."""
        tables = (self._runs, self.objects, self._events, self._nodes)
        versionless = [
            {key: changed(item, metadata={"resourceVersion": ""}) for key, item in table.items()}
            for table in tables
        ]
        return versionless, self.document, self.now

    def of_kind(self, kind: str) -> list[Object]:
        found = [(key.name, item) for key, item in self.objects.items() if key.kind == kind]
        return [item for _name, item in sorted(found, key=itemgetter(0))]

    def edit(self, **parts: Any) -> None:
        """What a user does to the spec."""
        generation = self.body["metadata"]["generation"] + 1
        self.body = changed(
            self.body,
            metadata={"generation": generation},
            spec=changed(self.body["spec"], **parts),
        )

    def apply(self, item: Object) -> None:
        """What a controller makes, with its status."""
        done(ClusterStandIn(self).apply({**item, "metadata": {**item["metadata"], **self._place}}))
        if "status" in item:
            key = key_of(item)
            self.objects[key] = {**self.objects[key], "status": item["status"]}

    @property
    def _place(self) -> dict[str, str]:
        return {"namespace": self.objects.namespace}

    def terminating(self, pod: Object) -> Object:
        return terminating(pod, self.now)


class Operator:
    """A process of the operator: what it remembers goes with it. `hooks`: see ClusterStandIn."""

    def __init__(
        self,
        world: World,
        settings: Settings = SETTINGS,
        metrics: Metrics = METRICS,
        **hooks: Hook,
    ) -> None:
        self._world = world
        self._settings = settings
        self._cluster = ClusterStandIn(world, **hooks)
        self._cache = ObjectCache()
        self.metrics = metrics
        self._seen: dict[str, int] = {}  # of each kind, its version when it was last listed
        self._key = RunKey(world.objects.namespace, world.run_name)
        self._reconciler = Reconciler(
            self._cluster,  # type: ignore[arg-type]
            self._cache,
            self,  # type: ignore[arg-type]
            settings,
            self.metrics,
            now=lambda: world.now,
        )
        self._marker = NodeMarker(
            self._cluster,  # type: ignore[arg-type]
            self._cache,
            settings.node_exclusion,
            self.metrics,
            wake=lambda _run: None,
            now=lambda: world.now,
        )

    async def status(self, run: RunKey) -> StatusDocument | None:
        """In the place of a CoordinatorClient."""
        document = self._world.document
        return document if document is not None and document.run == run.name else None

    def plan(self, *, silent_since: float | None = None) -> Plan:
        """What the decision core would say to all that is there. `silent_since`: coordinator."""
        world = self._world
        used = {pod["spec"].get("nodeName") for pod in world.of_kind("Pod")}
        nodes = {name: node for name, node in world.nodes.items() if name in used}
        observed = Observed(world.now, dict(world.objects), nodes, world.document, silent_since)
        return plan(run_from_object(world.body), observed, self._settings)

    @property
    def calls(self) -> list[str]:
        """So far, of those that ask for a change."""
        return self._cluster.calls

    def settle(self, *, sees_changes: bool = True) -> None:
        """Passes until one asks for nothing. The clock stands still."""
        for _ in range(10):
            if not self.one_pass(sees_changes=sees_changes):
                return
        raise AssertionError(f"no fixed point after 10 passes: {self._cluster.calls[-20:]}")

    def one_pass(self, *, sees_changes: bool = True) -> int:
        """Returns the number of calls that asked for a change, but for events.

        `sees_changes`: whether the watches have caught up before.
        """
        if sees_changes:
            self._watch()
        before = len(self._cluster.calls)
        done(self._reconciler.reconcile(self._key))
        if self._settings.node_exclusion.marks != "None":
            done(self._marker.mark())
        return sum(call != "create Event" for call in self._cluster.calls[before:])

    def _watch(self) -> None:
        """Kinds of which nothing was written since they were last listed say nothing."""
        for kind in _WATCHED:
            if self._seen.get(kind) == (version := self._world.table(kind).version_of(kind)):
                continue
            selector = "" if kind in _UNLABELLED else RUN_LABEL
            listed = done(self._cluster.list(kind, label_selector=selector))
            self._cache.replace(kind, None, listed.items, listed.resource_version)
            self._seen[kind] = version


__all__ = ["SETTINGS", "START", "Object", "Operator", "World", "changed", "key_of"]
