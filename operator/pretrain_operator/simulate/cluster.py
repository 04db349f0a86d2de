"""The Kubernetes objects that the operator sees, and the real plan on them: commit, delete, apply.

One Indexed Job's pods, their nodes, and nothing that decides: the plan does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pretrain_llm.contract.status import StatusDocument

from .. import conditions, names
from ..api.run import Run
from ..api.spec import RunSpec
from ..api.status import Artifact, IncidentStatus, RunStatus
from ..exclusion import node_marks
from ..manifests.training import COMPONENT
from ..observed import KubernetesObject, ObjectKey, Observed
from ..plan import plan
from ..planned import Deletion
from ..settings import Settings
from ..times import timestamp

_IMAGES = ("data", "training", "export", "postTraining", "serving")
_SETTINGS = Settings.model_validate(
    {
        "templates": {name: {"image": name} for name in _IMAGES},
        "nodeExclusion": {"marks": "Label"},
    }
)
_NAMESPACE = "simulated"
POLL_SECONDS = _SETTINGS.poll_interval_seconds
UNREACHABLE_SECONDS = float(_SETTINGS.unreachable_seconds)


def admitted(name: str, spec: RunSpec, now: float) -> Run:
    """A run whose data are prepared: its next stage is Training."""
    data = Artifact(stage="Data", path="data", digest="simulated", time=timestamp(now))
    return Run(
        name=name,
        namespace=_NAMESPACE,
        uid="simulated",
        generation=1,
        spec=spec,
        spec_error=None,
        status=RunStatus(artifacts=(data,)),
    )


@dataclass
class Cluster:
    """`on_pod_gone` hears of every training pod that the plan removes by force, `on_pod_asked` of
    those that it asks to leave.
    """

    run: Run
    on_pod_gone: Callable[[str], None]
    on_pod_asked: Callable[[str], None]
    objects: dict[ObjectKey, KubernetesObject] = field(default_factory=dict)
    nodes: dict[str, KubernetesObject] = field(default_factory=dict)
    incidents: dict[tuple[int, int], IncidentStatus] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.run.spec is not None
        claim = ObjectKey("PersistentVolumeClaim", self.run.spec.storage.claim_name)
        self.objects[claim] = {"kind": claim.kind, "metadata": {"name": claim.name}}

    @property
    def status(self) -> RunStatus:
        return self.run.status

    @property
    def is_stopped(self) -> bool:
        return conditions.is_stopped(self.status)

    @property
    def message(self) -> str:
        summary = conditions.condition(self.status, conditions.SUCCEEDED)
        return summary.message if summary else ""

    # What the operator does

    def operate(self, document: StatusDocument | None, now: float) -> None:
        """Passes until one does nothing, as the watches would wake it."""
        for _ in range(_MAX_PASSES):
            if not self._pass(document, now):
                break
        for entry in self.status.incidents:
            self.incidents[entry.attempt, entry.round] = entry

    def _pass(self, document: StatusDocument | None, now: float) -> bool:
        seen = Observed(now, dict(self.objects), dict(self.nodes), document)
        decided = plan(self.run, seen, _SETTINGS)
        self.run = replace(self.run, status=decided.status)
        for deletion in decided.delete:
            self._delete(deletion, now)
        for item in decided.apply:
            self.objects[ObjectKey(item["kind"], item["metadata"]["name"])] = _created(item)
        return self._mark_nodes(now) or bool(decided.delete or decided.apply)

    def _mark_nodes(self, now: float) -> bool:
        statuses = {self.run.uid: self.run.status}
        found = node_marks(statuses, self.nodes.values(), _SETTINGS.node_exclusion, now)
        for marks in found:
            node = self.nodes[marks.node]
            self.nodes[marks.node] = {
                **node,
                "metadata": {**node["metadata"], "labels": dict(marks.labels)},
            }
        return bool(found)

    def _delete(self, deletion: Deletion, now: float) -> None:
        pod = self.objects.get(deletion.key) if deletion.key.kind == "Pod" else None
        if pod is not None and deletion.grace_seconds is None:
            metadata = {**pod["metadata"], "deletionTimestamp": timestamp(now)}
            self.objects[deletion.key] = {**pod, "metadata": metadata}
            self.on_pod_asked(deletion.key.name)
        elif self.objects.pop(deletion.key, None) is not None and deletion.key.kind == "Pod":
            self.on_pod_gone(deletion.key.name)

    # What happens to it

    def edit(self) -> None:
        """A person answers a stop with some change of the spec; budgets stay what they are."""
        self.run = replace(self.run, generation=self.run.generation + 1)

    def add_pod(self, name: str, node: str, slot: int) -> None:
        self.nodes[node] = _node(node, "True", since=0.0)
        self.objects[ObjectKey("Pod", name)] = {
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {
                    names.RUN_LABEL: self.run.name,
                    names.COMPONENT_LABEL: COMPONENT,
                    names.ATTEMPT_LABEL: str(self.status.attempt),
                    "batch.kubernetes.io/job-completion-index": str(slot),
                },
            },
            "spec": {"nodeName": node},
            "status": {"phase": "Running"},
        }

    def lose_node(self, node: str, now: float) -> None:
        self.nodes[node] = _node(node, "Unknown", since=now)

    def take_pod(self, name: str, now: float, disruption: str) -> None:
        """Marked for deletion from outside."""
        key = ObjectKey("Pod", name)
        pod = self.objects.get(key)
        if pod is None:
            return
        target = {"type": "DisruptionTarget", "status": "True", "reason": disruption}
        metadata = {**pod["metadata"], "deletionTimestamp": timestamp(now)}
        status = {**pod["status"], "conditions": [target]}
        self.objects[key] = {**pod, "metadata": metadata, "status": status}

    def remove_pod(self, name: str) -> None:
        """Its containers have ended."""
        pod = self.objects.pop(ObjectKey("Pod", name), None)
        if pod is not None:
            self.nodes.pop(pod["spec"]["nodeName"], None)


_MAX_PASSES = 5


def _created(item: KubernetesObject) -> KubernetesObject:
    """As the server stores it."""
    metadata: dict[str, Any] = {**item["metadata"], "uid": item["metadata"]["name"]}
    return {**item, "metadata": {"generation": 1, **metadata}}


def _node(name: str, ready: str, *, since: float) -> KubernetesObject:
    conditions_ = [{"type": "Ready", "status": ready, "lastTransitionTime": timestamp(since)}]
    return {
        "kind": "Node",
        "metadata": {"name": name, "uid": name},
        "status": {"conditions": conditions_},
    }
