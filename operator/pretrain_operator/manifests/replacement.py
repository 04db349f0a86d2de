"""A pod of the training Job that the operator makes in the place of one that failed.

It is the one that the Job controller would make, down to its finalizer and its owner, so the
controller counts it as its own (`manageJob` in Kubernetes' pkg/controller/job/job_controller.go).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from pretrain_llm.contract import environment

from .. import names
from ..observed import KubernetesObject
from .metadata import Object, digest

_TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"  # until the Job has counted its end


def replacement_pod(job: KubernetesObject, slot: int, failed: Sequence[KubernetesObject]) -> Object:
    """From the Job as the server has it: admission and Kueue may have changed its template.

    `failed`: pods of the slot that are there. With the Job's own count of the others they tell one
    vacancy from the next: each has a name of its own, the same in every pass.
    """
    name, template = job["metadata"]["name"], job["spec"]["template"]
    uids = sorted(pod["metadata"]["uid"] for pod in failed)
    vacancy = digest({"counted": job.get("status", {}).get("failed", 0), "failed": uids})
    mark = {names.SLOT_LABEL: str(slot)}
    metadata = template.get("metadata", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.replacement_pod(name, slot, vacancy),
            "namespace": job["metadata"]["namespace"],
            "labels": {**metadata.get("labels", {}), **mark},
            "annotations": {**metadata.get("annotations", {}), **mark},
            "finalizers": [_TRACKING_FINALIZER],
            "ownerReferences": [_owner(job)],
        },
        "spec": {**_with_slot(template["spec"]), "hostname": f"{name}-{slot}"},
    }


def _owner(job: KubernetesObject) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,  # True needs a right over Jobs where a plugin checks it
    }


def _with_slot(spec: KubernetesObject) -> Object:
    """Every container is told its slot, as the Job controller does."""
    path = f"metadata.labels['{names.SLOT_LABEL}']"
    variable = {"name": environment.SLOT, "valueFrom": {"fieldRef": {"fieldPath": path}}}
    told: dict[str, Any] = copy.deepcopy(dict(spec))
    for container in (*told.get("initContainers", ()), *told["containers"]):
        env = container.setdefault("env", [])
        if all(entry["name"] != environment.SLOT for entry in env):
            env.append(variable)
    return told
