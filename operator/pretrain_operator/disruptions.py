"""Why pods were taken away, kept for when they are gone. Pure.

condition DisruptionTarget ─► SIGTERM ─► pod gone ……► all ranks have saved: the round is broken
         told here                                     and the incident asks for it

Of a pod that the operator itself gives up, this is told before it is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import pod_facts
from .api.status import MAX_DISRUPTIONS, Disruption, RunStatus
from .case import Case
from .manifests.training import COMPONENT
from .names import NODE_LOST, NODE_LOST_WORDS
from .observed import KubernetesObject

_SHOWN_CHARACTERS = 300


def with_disruptions(
    case: Case, status: RunStatus, given_up: Iterable[KubernetesObject]
) -> RunStatus:
    """With those of the training pods that are there, behind those that are gone."""
    lost = {pod["metadata"]["name"] for pod in given_up}
    there = {pod["metadata"]["name"]: pod for pod in case.pods(COMPONENT, status.attempt)}
    gone = [entry for entry in status.disruptions if entry.pod not in there]
    found = (_told(pod) or (_lost(pod) if name in lost else None) for name, pod in there.items())
    told = [entry for entry in found if entry is not None]
    return status.model_copy(update={"disruptions": (*gone, *told)[-MAX_DISRUPTIONS:]})


def _told(pod: KubernetesObject) -> Disruption | None:
    if (reason := pod_facts.disruption(pod)) is None:
        return None
    words = (pod_facts.disruption_words(pod) or "")[:_SHOWN_CHARACTERS]
    return _entry(pod, reason, words)


def _lost(pod: KubernetesObject) -> Disruption:
    return _entry(pod, NODE_LOST, NODE_LOST_WORDS)


def _entry(pod: KubernetesObject, reason: str, words: str) -> Disruption:
    name = pod["metadata"]["name"]
    return Disruption(pod=name, reason=reason, message=words, node=pod_facts.node_name(pod))


def disruption(case: Case, pod_name: str | None) -> Disruption | None:
    """None where nobody took the pod away."""
    pod = case.observed.get("Pod", pod_name) if pod_name else None
    if pod is not None:
        return _told(pod)
    known = (entry for entry in case.run.status.disruptions if entry.pod == pod_name)
    return next(known, None)
