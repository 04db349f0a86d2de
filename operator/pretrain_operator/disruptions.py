"""Why pods were taken away, kept for when they are gone. Pure.

condition DisruptionTarget ─► SIGTERM ─► pod gone ……► all ranks have saved: the round is broken
         told here                                     and the incident asks for it
"""

from __future__ import annotations

from . import pod_facts
from .api.status import MAX_DISRUPTIONS, Disruption, RunStatus
from .case import Case
from .manifests.training import COMPONENT
from .observed import KubernetesObject

_SHOWN_CHARACTERS = 300


def with_disruptions(case: Case, status: RunStatus) -> RunStatus:
    """With those of the training pods that are there, behind those that are gone."""
    there = {pod["metadata"]["name"]: pod for pod in case.pods(COMPONENT, status.attempt)}
    gone = [entry for entry in status.disruptions if entry.pod not in there]
    told = [entry for pod in there.values() if (entry := _told(pod)) is not None]
    return status.model_copy(update={"disruptions": (*gone, *told)[-MAX_DISRUPTIONS:]})


def _told(pod: KubernetesObject) -> Disruption | None:
    if (reason := pod_facts.disruption(pod)) is None:
        return None
    words = (pod_facts.disruption_words(pod) or "")[:_SHOWN_CHARACTERS]
    return Disruption(pod=pod["metadata"]["name"], reason=reason, message=words)


def disruption(case: Case, pod_name: str | None) -> tuple[str | None, str | None]:
    """Reason and words; None where nobody took the pod away."""
    pod = case.observed.get("Pod", pod_name) if pod_name else None
    if pod is not None:
        return pod_facts.disruption(pod), pod_facts.disruption_words(pod)
    known = (entry for entry in case.run.status.disruptions if entry.pod == pod_name)
    entry = next(known, None)
    return (entry.reason, entry.message or None) if entry else (None, None)
