"""What one pass sees, frozen: the children from the watches, the coordinator's document, the time.

Kubernetes objects stay as the API gives them (camelCase dicts), wrapped only where the core reads
them often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pretrain_llm.contract.status import StatusDocument

from .api.run import Run as Run

KubernetesObject = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class ObjectKey:
    """A child within the run's namespace."""

    kind: str  # Job, Pod, Deployment, Service, ConfigMap, PersistentVolumeClaim
    name: str


@dataclass(frozen=True)
class Observed:
    now: float  # seconds since the epoch
    objects: Mapping[ObjectKey, KubernetesObject] = field(default_factory=dict)
    """Children of the run, and the claim that its storage names."""
    nodes: Mapping[str, KubernetesObject] = field(default_factory=dict)
    """Nodes that the run's pods are on or that its faults blame, by name; empty where the operator
    may not read nodes.
    """
    coordinator: StatusDocument | None = None
    """None where it does not answer."""
    coordinator_silent_since: float | None = None
    """Seconds since the epoch: when it was first asked in vain since its last answer."""

    def of_kind(self, kind: str) -> list[KubernetesObject]:
        """In order of name."""
        return [item for key, item in sorted(self.objects.items()) if key.kind == kind]

    def get(self, kind: str, name: str) -> KubernetesObject | None:
        return self.objects.get(ObjectKey(kind, name))
