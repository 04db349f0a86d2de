"""Which nodes a run, or every run, keeps away from, because faults blame them. Pure.

The fault table says whom a class blames: nobody, a node that it hits again and again, or a node at
once. A run counts its own incidents; all runs together are counted on the Node itself, whose labels
are both the operator's memory and what the pods' affinity avoids.

    fault ─► counted ─► excluded from the run ─────────────────────────────────► until: over
                            │ labels: the pod there is deleted, a spare steps in,
                            │         the Job makes another one elsewhere
                            └ none:   a new attempt, which avoids the node by its name

Faults count as long as an exclusion lasts, so those that led to one are forgotten at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from . import faults, names, node_facts, pod_facts
from .api.status import MAX_EXCLUDED_NODES, ExcludedNode, IncidentStatus, RunStatus
from .case import Case
from .manifests.training import COMPONENT
from .observed import KubernetesObject
from .settings import NodeExclusion
from .times import epoch_seconds, timestamp

# Of one run


def with_exclusions(case: Case, status: RunStatus, settings: NodeExclusion) -> RunStatus:
    """With those that faults call for, and without those that are over."""
    if not case.spec.recovery.exclude_node_after:
        return status.model_copy(update={"excluded_nodes": ()})
    kept = [_scoped(case, entry) for entry in status.excluded_nodes if _holds(case, entry)]
    known = {entry.name for entry in kept}
    for name in dict.fromkeys(item.suspect.node for item in status.incidents):
        if name is None or name in known or len(kept) == MAX_EXCLUDED_NODES:
            continue
        if (reason := _reason(case, status, name, settings)) is not None:
            kept.append(_scoped(case, _exclusion(case, name, reason, settings)))
    kept += _straggler(case, status, kept, settings)
    return status.model_copy(update={"excluded_nodes": tuple(kept)})


def _straggler(
    case: Case, status: RunStatus, kept: list[ExcludedNode], settings: NodeExclusion
) -> Iterator[ExcludedNode]:
    """The slowest rank's node: only one of a round, because without it the others may do."""
    document = case.document(status)
    if case.spec.recovery.stragglers.action != "Replace" or document is None:
        return
    slow = next(iter(document.stragglers), None)
    if slow is None or not slow.node or len(kept) == MAX_EXCLUDED_NODES:
        return
    leaving = {entry.name for entry in kept} & {straggler.node for straggler in document.stragglers}
    if not leaving:
        reason = f"rank {slow.rank} is a straggler, score {slow.z_score:g}"
        yield _scoped(case, _exclusion(case, slow.node, reason, settings))


def must_move(case: Case, status: RunStatus, settings: NodeExclusion) -> bool:
    """Whether only another attempt leaves an excluded node: nothing may be written to the Node."""
    excluded = {entry.name for entry in status.excluded_nodes}
    pods = case.pods(COMPONENT, status.attempt) if settings.marks == "None" else ()
    return any(pod_facts.is_live(pod) and pod_facts.node_name(pod) in excluded for pod in pods)


def is_marked(case: Case, status: RunStatus, pod: KubernetesObject) -> bool:
    """Whether a pod is on an excluded node that takes no other in its place."""
    name = pod_facts.node_name(pod)
    node = case.observed.nodes.get(name or "")
    if node is None or all(entry.name != name for entry in status.excluded_nodes):
        return False
    return node_facts.excluded_until(node, names.excluded_from_label(case.run.uid)) > 0


def _exclusion(case: Case, name: str, reason: str, settings: NodeExclusion) -> ExcludedNode:
    return ExcludedNode(
        name=name,
        since=timestamp(case.now),
        until=timestamp(case.now + settings.seconds),
        reason=reason,
    )


def _holds(case: Case, entry: ExcludedNode) -> bool:
    is_mended = _repaired_at(case, entry.name) > epoch_seconds(entry.since)
    return case.now < epoch_seconds(entry.until) and not is_mended


def _scoped(case: Case, entry: ExcludedNode) -> ExcludedNode:
    is_from_all = _is_from_all(case, entry.name) or entry.scope == "AllRuns"
    return entry.model_copy(update={"scope": "AllRuns"}) if is_from_all else entry


def _reason(case: Case, status: RunStatus, name: str, settings: NodeExclusion) -> str | None:
    """None: the node may stay."""
    since = max(case.now - settings.seconds, _repaired_at(case, name))
    blamed = [item for item in _blamed(status.incidents, since) if item.suspect.node == name]
    if not blamed:
        return None
    at_once = [item for item in blamed if faults.blame(item.fault_class) == "AtOnce"]
    if at_once:
        return f"{at_once[-1].fault_class} at {at_once[-1].time}"
    limit = 1 if _is_from_all(case, name) else case.spec.recovery.exclude_node_after
    classes = ", ".join(sorted({item.fault_class for item in blamed}))
    return f"{len(blamed)} faults: {classes}" if len(blamed) >= limit else None


def _blamed(incidents: Iterable[IncidentStatus], since: float) -> Iterator[IncidentStatus]:
    for item in incidents:
        if faults.blame(item.fault_class) != "Never" and epoch_seconds(item.time) > since:
            yield item


def _is_from_all(case: Case, name: str) -> bool:
    node = case.observed.nodes.get(name)
    until = node_facts.excluded_until(node, names.EXCLUDED_LABEL) if node is not None else 0.0
    return until > case.now


def _repaired_at(case: Case, name: str) -> float:
    node = case.observed.nodes.get(name)
    return node_facts.repaired_at(node) if node is not None else 0.0


# On the Nodes, for all runs


@dataclass(frozen=True)
class NodeMarks:
    """What a Node should say of exclusions, and does not."""

    node: str
    uid: str
    labels: Mapping[str, str] = field(default_factory=dict)
    is_tainted: bool = False


def node_marks(
    runs: Mapping[str, RunStatus],
    nodes: Iterable[KubernetesObject],
    settings: NodeExclusion,
    now: float,
) -> list[NodeMarks]:
    """Of the nodes whose marks are not as they should be. `runs`: by uid; all that there are."""
    excluded = _excluded_by_node(runs, now)
    counted = _faults_by_node(runs)
    marks = []
    for node in nodes:
        name = node["metadata"]["name"]
        labels = dict(excluded.get(name, {}))
        if (until := _until_for_all(node, counted.get(name, ()), settings, now)) > now:
            labels[names.EXCLUDED_LABEL] = str(int(until))
        tainted = settings.marks == "Taint" and names.EXCLUDED_LABEL in labels
        if labels != marked_labels(node) or tainted != is_tainted(node):
            marks.append(NodeMarks(name, node["metadata"]["uid"], labels, tainted))
    return marks


def marked_labels(node: KubernetesObject) -> dict[str, str]:
    """Our own of a Node's labels."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    own = (names.EXCLUDED_LABEL, names.excluded_from_label(""))
    return {
        name: value for name, value in labels.items() if name == own[0] or name.startswith(own[1])
    }


def is_excluded_from_all(node: KubernetesObject) -> bool:
    return names.EXCLUDED_LABEL in marked_labels(node)


def is_tainted(node: KubernetesObject) -> bool:
    taints = node.get("spec", {}).get("taints") or ()
    return any(taint["key"] == names.EXCLUDED_LABEL for taint in taints)


def _excluded_by_node(runs: Mapping[str, RunStatus], now: float) -> dict[str, dict[str, str]]:
    labels: dict[str, dict[str, str]] = {}
    for uid, status in runs.items():
        for entry in status.excluded_nodes:
            until = epoch_seconds(entry.until)
            if until > now:
                label = names.excluded_from_label(uid)
                labels.setdefault(entry.name, {})[label] = str(int(until))
    return labels


def _faults_by_node(runs: Mapping[str, RunStatus]) -> dict[str, list[float]]:
    """Times of the faults that blame a node, of all runs."""
    times: dict[str, list[float]] = {}
    for status in runs.values():
        for item in _blamed(status.incidents, 0.0):
            if item.suspect.node is not None:
                times.setdefault(item.suspect.node, []).append(epoch_seconds(item.time))
    return times


def _until_for_all(
    node: KubernetesObject, faulted_at: Iterable[float], settings: NodeExclusion, now: float
) -> float:
    """0: not excluded. What is excluded stays so, even where the runs that saw it are gone."""
    if not settings.faults_of_all_runs:
        return 0.0
    repaired_at = node_facts.repaired_at(node)
    until = node_facts.excluded_until(node, names.EXCLUDED_LABEL)
    if until > now and until - settings.seconds >= repaired_at:
        return until
    since = max(now - settings.seconds, repaired_at)
    is_due = sum(time > since for time in faulted_at) >= settings.faults_of_all_runs
    return now + settings.seconds if is_due else 0.0
