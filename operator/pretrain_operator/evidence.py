"""What is known of a fault: by the coordinator, by its pod, by its node. Pure.

incident ─┐
pod ──────┼──► Evidence ──► faults.py: its class, level and budget
node ─────┘
"""

from __future__ import annotations

from collections.abc import Sequence

from pretrain_llm.contract import symptoms
from pretrain_llm.contract.reports import FaultReport
from pretrain_llm.contract.status import Incident, Rollback

from . import disruptions, faults, node_facts, pod_facts
from .api.status import Disruption
from .case import Case
from .faults import Evidence
from .observed import KubernetesObject


def of_incident(case: Case, incident: Incident, earlier: Sequence[Incident]) -> Evidence:
    """What the coordinator, the pod and the node say of one incident."""
    first, rollback = incident.first_fault, incident.rollback
    pod = case.observed.get("Pod", incident.agent) if incident.agent else None
    ended = pod_facts.termination(pod) if pod is not None else None
    disruption = disruptions.disruption(case, incident.agent)
    node_name = incident.node or _node_name(pod, disruption)
    node = case.observed.nodes.get(node_name or "")
    return Evidence(
        kind=incident.evidence,
        exit_code=first.exit_code if first else (ended.exit_code if ended else None),
        signal=first.signal if first else None,
        out_of_memory=_is_out_of_memory(incident, earlier, ended),
        message=_words(incident),
        symptom=_symptom(first) if first else None,
        rollbacks_spent=rollback is not None and rollback.skipped is None,
        steps_since_start=_steps_since_start(incident, earlier[-1] if earlier else None),
        disruption=disruption.reason if disruption else None,
        disruption_words=_words_about(pod, disruption),
        pod_gone=incident.agent is not None and (pod is None or pod_facts.is_deleting(pod)),
        node_ready=case.is_node_ready(node_name),
        node_problem=node_facts.problem(node) if node is not None else None,
        node_cordoned=node is not None and node_facts.is_cordoned(node),
        rank=_rank(incident),
        pod=incident.agent,
        node=node_name,
        memory_limit=pod_facts.memory_limit(pod) if pod is not None else None,
    )


def of_pod(pod: KubernetesObject, steps_since_start: int | None) -> Evidence:
    """What a failed training pod says of itself."""
    ended = pod_facts.termination(pod)
    return Evidence(
        kind=faults.POD_FAILED,
        exit_code=ended.exit_code if ended else None,
        out_of_memory=ended.out_of_memory if ended else False,
        message=ended.words if ended else None,
        symptom=symptoms.symptom(ended.words or "") if ended else None,
        steps_since_start=steps_since_start,
        disruption=pod_facts.disruption(pod),
        disruption_words=pod_facts.disruption_words(pod),
        pod=pod["metadata"]["name"],
        node=pod_facts.node_name(pod),
        memory_limit=pod_facts.memory_limit(pod),
    )


def _node_name(pod: KubernetesObject | None, disruption: Disruption | None) -> str | None:
    """Of an agent that the coordinator never heard of: it took over the round that lost it."""
    if pod is not None:
        return pod_facts.node_name(pod)
    return disruption.node if disruption else None


def _words_about(pod: KubernetesObject | None, disruption: Disruption | None) -> str | None:
    """A kubelet may say why a pod ended without calling it a disruption."""
    if pod is not None:
        return pod_facts.disruption_words(pod)
    return (disruption.message or None) if disruption else None


def _is_out_of_memory(
    incident: Incident, earlier: Sequence[Incident], ended: pod_facts.Termination | None
) -> bool:
    """The kernel's word for it. The kubelet's is no news of a pod that has outlived the kill of a
    worker: it says OOMKilled then whatever ends the container.
    """
    if _has_starved(incident):
        return True
    is_known = any(_has_starved(one) and one.agent == incident.agent for one in earlier)
    return ended is not None and ended.out_of_memory and not is_known


def _has_starved(incident: Incident) -> bool:
    return incident.first_fault is not None and incident.first_fault.out_of_memory


def _rank(incident: Incident) -> int | None:
    if incident.first_fault is not None:
        return incident.first_fault.rank
    return incident.suspects[0].rank if incident.suspects else None


def _words(incident: Incident) -> str | None:
    first = incident.first_fault
    said = own_words(first) if first else _stall_words(incident)
    return "; ".join(filter(None, (said, _rollback_words(incident.rollback)))) or None


def _rollback_words(rollback: Rollback | None) -> str:
    if rollback is None:
        return ""
    if rollback.skipped is None:
        return f"wrong from step {rollback.onset}; all rollbacks are spent"
    skipped = rollback.skipped
    return (
        f"wrong from step {rollback.onset}; back to before step {rollback.first}, without the"
        f" batches of data steps {skipped.first} to {skipped.end - 1}"
    )


def own_words(fault: FaultReport) -> str | None:
    """The program's error, and what its stderr says beyond it."""
    error = fault.error_message or ""
    head = error.partition("\n")[0].rstrip(".") or "\n"
    lines = [line for line in fault.stderr if line not in error and head not in line]
    return "; stderr: ".join(filter(None, (error, " | ".join(lines)))) or None


def _symptom(fault: FaultReport) -> str | None:
    """Agents of an older image tell none."""
    return fault.symptom or symptoms.symptom(fault.error_message or "")


def _stall_words(incident: Incident) -> str | None:
    """Whom a stall's stacks blame, where that rank stood, and where all of them are."""
    if incident.stacks_path is None and not incident.suspects:
        return None
    told = [f"rank {suspect.rank}: {suspect.reason}" for suspect in incident.suspects]
    words = "; ".join(told) or "no rank stands out"
    if incident.suspects and incident.suspects[0].frames:
        words += f", at {' < '.join(incident.suspects[0].frames)}"
    return words + (f"; stacks in {incident.stacks_path}" if incident.stacks_path else "")


def _steps_since_start(incident: Incident, previous: Incident | None) -> int | None:
    """Steps of the broken round. Of an attempt's first round only if it began from scratch."""
    if previous is None:
        return incident.last_step
    if previous.first_step_seconds is None:
        return 0
    return None if previous.resumed_step is None else incident.last_step - previous.resumed_step
