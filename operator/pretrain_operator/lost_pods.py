"""Pods whose node is gone, by Kubernetes' word and by the coordinator's. Pure.

A node is NotReady where its kubelet does not reach the API server, which also happens to nodes that
train on: after the API server was down, several of them for half a minute. So a training pod is
given up only once its agent is silent too. Kubernetes would delete it on the first word alone, so
training pods tolerate that for longer than this takes, and the operator deletes them:

    node NotReady ──unreachable_seconds──► agent silent? ──yes──► pod deleted by force, made anew
                                               └─no──► it trains on; looked at again
"""

from __future__ import annotations

from collections.abc import Iterator

from pretrain_llm.contract.status import StatusDocument

from . import pod_facts
from .api.status import RunStatus
from .case import Case
from .manifests.metadata import component
from .manifests.training import COMPONENT
from .observed import KubernetesObject
from .settings import Settings
from .times import epoch_seconds

NODE_LOST = "NodeLost"  # what the operator says of a pod before it deletes it by force
HEARD_SECONDS = 3.0  # the coordinator's lease: six reports of an agent
_NO_COORDINATOR_SECONDS = 60.0  # it is made anew and hears of the agents that are left


def lost_pods(case: Case, status: RunStatus, settings: Settings) -> Iterator[KubernetesObject]:
    """Those that nobody hears of. One that is on its way out stays so until it is deleted by force,
    and the Job does not replace it before it is gone.
    """
    document = case.document(status)
    for pod in on_silent_nodes(case):
        if component(pod) == COMPONENT and is_heard(pod, document):
            continue
        if pod_facts.is_deleting(pod) or _is_given_up(case, pod, document, settings):
            yield pod


def on_silent_nodes(case: Case) -> Iterator[KubernetesObject]:
    """None where the operator may not read nodes."""
    if not case.observed.nodes:
        return
    for pod in case.observed.of_kind("Pod"):
        name = pod_facts.node_name(pod)
        node = case.observed.nodes.get(name) if name else None
        if name and (node is None or not pod_facts.holds(node, "Ready")):
            yield pod


def is_heard(pod: KubernetesObject, document: StatusDocument | None) -> bool:
    """Whether its agent reports to the coordinator."""
    if document is None:
        return False
    name = pod["metadata"]["name"]
    return any(
        agent.name == name and document.time - agent.last_seen < HEARD_SECONDS
        for agent in document.agents
    )


def _is_given_up(
    case: Case, pod: KubernetesObject, document: StatusDocument | None, settings: Settings
) -> bool:
    """Of a silent training pod that nobody has deleted yet; Kubernetes deletes the others."""
    silent_since = _silent_since(case, pod)
    has_ended = not pod_facts.is_live(pod) and pod_facts.disruption(pod) != NODE_LOST
    if component(pod) != COMPONENT or has_ended or silent_since is None:
        return False
    silent_seconds = case.now - silent_since
    if document is None:
        return silent_seconds >= _NO_COORDINATOR_SECONDS
    has_listened = document.time - document.started_at >= HEARD_SECONDS
    return has_listened and silent_seconds >= settings.unreachable_seconds


def _silent_since(case: Case, pod: KubernetesObject) -> float | None:
    """Seconds since the epoch; None of a node that is not there: it may be new, or Kubernetes
    removes its pods.
    """
    node = case.observed.nodes.get(pod_facts.node_name(pod) or "")
    ready = pod_facts.condition(node, "Ready") if node else None
    changed = ready.get("lastTransitionTime") if ready else None
    return epoch_seconds(changed) if changed else None
