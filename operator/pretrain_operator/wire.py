"""Forms that only the API server sees: the status as JSON, Events. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

from . import api
from .api.status import RunStatus
from .exclusion import NodeMarks
from .names import EXCLUDED_LABEL, NODE_LOST, NODE_LOST_WORDS
from .observed import KubernetesObject, Run
from .planned import Event
from .times import timestamp

_MAX_EVENT_MESSAGE = 1024  # characters; the API server refuses more
_COMPONENT = "pretrain-operator"


def status_object(status: RunStatus) -> dict[str, Any]:
    """camelCase, fields that are None left out."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def lost_pod(namespace: str, name: str, uid: str, now: float) -> dict[str, Any]:
    """A pod's status when its node is lost: failed, and not by its own fault.

    Deleting it, even by force, is not enough: a Job takes its finalizer from a pod only once the
    pod has failed, and with podReplacementPolicy Failed does not replace it before. The condition
    is the one that Kubernetes' own pod garbage collector sets.
    """
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": NODE_LOST,
        "message": NODE_LOST_WORDS,
        "lastTransitionTime": timestamp(now),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": uid},
        "status": {"phase": "Failed", "reason": NODE_LOST, "conditions": [condition]},
    }


def node_labels(marks: NodeMarks) -> dict[str, Any]:
    """For server-side apply: all labels of ours. With the uid, so that a Node that is gone is not
    made.
    """
    metadata = {"name": marks.node, "uid": marks.uid, "labels": dict(marks.labels)}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}


def node_taints(marks: NodeMarks, node: KubernetesObject) -> dict[str, Any]:
    """For a merge: the Node's taints, ours among them or not, if they are still as seen."""
    known = node.get("spec", {}).get("taints") or ()
    taints = [taint for taint in known if taint["key"] != EXCLUDED_LABEL]
    if marks.is_tainted:
        taints.append({"key": EXCLUDED_LABEL, "effect": "NoSchedule"})
    metadata = {"name": marks.node, "resourceVersion": node["metadata"]["resourceVersion"]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}}


def event_object(run: Run, event: Event) -> dict[str, Any]:
    """Its name is a function of what it tells: telling it twice is refused as already there."""
    digest = hashlib.sha256(f"{run.uid}/{event.key}".encode()).hexdigest()[:16]
    time = timestamp(event.time)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{run.name}.{digest}", "namespace": run.namespace},
        "involvedObject": {
            "apiVersion": api.API_VERSION,
            "kind": api.KIND,
            "name": run.name,
            "namespace": run.namespace,
            "uid": run.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:_MAX_EVENT_MESSAGE],
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": "",
    }
