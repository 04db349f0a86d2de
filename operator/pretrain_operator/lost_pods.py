"""Pods whose node is gone, by Kubernetes' word and by their own silence. Pure.

A node is NotReady where its kubelet does not reach the API server, which also happens to nodes that
train on: after the API server was down, several of them for half a minute. So a training pod is
given up only once its agent is silent too, a coordinator once it does not answer. Kubernetes would
delete them on the first word alone, so they tolerate that for longer than this takes, and the
operator deletes them:

    node NotReady ──unreachable_seconds──► pod silent? ──yes──► deleted by force, made anew
                                               └─no──► it goes on; looked at again
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pretrain_llm.contract.protocol import LEASE_SECONDS
from pretrain_llm.contract.status import StatusDocument

from . import pod_facts
from .api.status import RunStatus
from .case import Case
from .manifests.metadata import component
from .manifests.training import COMPONENT, COORDINATOR
from .names import NODE_LOST
from .observed import KubernetesObject
from .settings import Settings
from .times import epoch_seconds

_NO_COORDINATOR_SECONDS = 60.0  # it is made anew and hears of the agents that are left


def lost_pods(case: Case, status: RunStatus, settings: Settings) -> Iterator[KubernetesObject]:
    """Those that nobody hears of. One that is on its way out stays so until it is deleted by force,
    and the Job does not replace it before it is gone.
    """
    document, anyone = case.document(status), case.observed.coordinator
    for pod in on_silent_nodes(case):
        if pod_facts.disruption(pod) == NODE_LOST:
            yield pod  # marked, and then the operator was killed
        elif component(pod) == COMPONENT and is_heard(pod, anyone):
            continue  # also by the coordinator of the attempt before, while its pods save
        elif _is_stuck(case, pod, settings) or _is_given_up(case, pod, document, settings):
            yield pod


def on_silent_nodes(case: Case) -> Iterator[KubernetesObject]:
    """None where the operator may not read nodes."""
    for pod in case.observed.of_kind("Pod"):
        if case.is_node_ready(pod_facts.node_name(pod)) is False:
            yield pod


def is_heard(pod: KubernetesObject, document: StatusDocument | None) -> bool:
    """Whether its agent reports to the coordinator."""
    if document is None:
        return False
    name = pod["metadata"]["name"]
    return any(
        agent.name == name and document.time - agent.last_seen < LEASE_SECONDS
        for agent in document.agents
    )


def _is_stuck(case: Case, pod: KubernetesObject, settings: Settings) -> bool:
    """A pod that was deleted and that nobody hears of: not for one answer that came late."""
    if not pod_facts.is_deleting(pod):
        return False
    if component(pod) != COMPONENT or case.observed.coordinator is not None:
        return True
    return _unanswered_seconds(case) >= settings.unreachable_seconds


def _is_given_up(
    case: Case, pod: KubernetesObject, document: StatusDocument | None, settings: Settings
) -> bool:
    """Of a pod that nobody has deleted yet; those of other components Kubernetes deletes."""
    seconds = settings.unreachable_seconds
    if not pod_facts.is_live(pod) or _not_ready_seconds(case, pod) < seconds:
        return False
    if component(pod) == COORDINATOR:
        # Not for one late answer: it may go on beside the next, and each would name rounds.
        return document is None and _unanswered_seconds(case) >= seconds
    if component(pod) != COMPONENT:
        return False
    if document is None:
        return _unanswered_seconds(case) >= _NO_COORDINATOR_SECONDS
    return document.time - document.started_at >= LEASE_SECONDS


def _unanswered_seconds(case: Case) -> float:
    since = case.observed.coordinator_silent_since
    return 0.0 if since is None else case.now - since


def _not_ready_seconds(case: Case, pod: KubernetesObject) -> float:
    """Endlessly few of a node that is not there: it may be new, or Kubernetes removes its pods."""
    node = case.observed.nodes.get(pod_facts.node_name(pod) or "")
    ready = pod_facts.condition(node, "Ready") if node else None
    changed = ready.get("lastTransitionTime") if ready else None
    return case.now - epoch_seconds(changed) if changed else -math.inf
