"""One run as one pass sees it, with its configuration resolved and its children at hand. Frozen."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_llm.contract.config import AnyConfig
from pretrain_llm.contract.status import StatusDocument

from . import names, pod_facts
from .api.spec import AnySpec
from .api.status import RunStatus
from .observed import KubernetesObject, Observed, Run


@dataclass(frozen=True)
class Case:
    run: Run
    spec: AnySpec
    config: AnyConfig
    observed: Observed

    @property
    def now(self) -> float:
        return self.observed.now

    def pods(self, component: str, attempt: int | None = None) -> list[KubernetesObject]:
        """In order of name."""
        wanted = {names.COMPONENT_LABEL: component}
        if attempt is not None:
            wanted[names.ATTEMPT_LABEL] = str(attempt)
        return [
            pod for pod in self.observed.of_kind("Pod") if wanted.items() <= _labels(pod).items()
        ]

    def live_pods(self, *components: str) -> list[KubernetesObject]:
        """Pods that hold, or may still hold, their devices."""
        return [
            pod
            for pod in self.observed.of_kind("Pod")
            if pod_facts.is_live(pod) and _labels(pod).get(names.COMPONENT_LABEL) in components
        ]

    def document(self, status: RunStatus) -> StatusDocument | None:
        """What the coordinator of the status' attempt says; None where it does not answer."""
        document = self.observed.coordinator
        return document if document is not None and document.attempt == status.attempt else None

    def training_job(self, status: RunStatus) -> KubernetesObject | None:
        """The Job of the current attempt."""
        return self.observed.get("Job", names.training_job(self.run.name, status.attempt))

    def is_node_ready(self, name: str | None) -> bool | None:
        """None where it is not known, for example because the operator may not read nodes."""
        if name is None or not self.observed.nodes:
            return None
        node = self.observed.nodes.get(name)
        return node is not None and pod_facts.holds(node, "Ready")


def _labels(item: KubernetesObject) -> dict[str, str]:
    labels: dict[str, str] = item["metadata"].get("labels", {})
    return labels
