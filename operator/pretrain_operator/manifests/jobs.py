"""The parts that all Jobs of a run share: what a pod's failure means to the Job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..observed import KubernetesObject
from .metadata import Object
from .pods import MAIN_CONTAINER


def failure_policy(final_exit_codes: Iterable[int]) -> Object:
    """Final exit codes fail the Job at once; a disrupted pod is replaced without being counted."""
    return {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {
                    "containerName": MAIN_CONTAINER,
                    "operator": "In",
                    "values": sorted(final_exit_codes),
                },
            },
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
        ]
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
