"""The parts that all Jobs of a run share: what a pod's failure means to the Job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..observed import KubernetesObject
from .metadata import Object
from .pods import MAIN_CONTAINER

DISRUPTED: Object = {  # is replaced without being counted
    "action": "Ignore",
    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
}


def final_exit(codes: Iterable[int]) -> Object:
    """The rule of a podFailurePolicy that these exit codes fail the Job at once."""
    return {
        "action": "FailJob",
        "onExitCodes": {
            "containerName": MAIN_CONTAINER,
            "operator": "In",
            "values": sorted(codes),
        },
    }


_SERVER_FIELDS = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation")


def with_suspend(job: KubernetesObject, suspend: bool) -> Object:
    """The Job as it is on the server, suspended or resumed: the rest of it is immutable, and may
    have been written by an operator of another version.
    """
    metadata: Mapping[str, object] = job["metadata"]
    kept = {key: value for key, value in metadata.items() if key not in _SERVER_FIELDS}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": kept,
        "spec": {**job["spec"], "suspend": suspend},
    }
