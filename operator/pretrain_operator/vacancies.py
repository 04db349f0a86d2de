"""Slots that the training Job leaves empty for longer than it has to, and the pods for them. Pure.

The Job controller waits before it makes any pod of a Job that had a failed one: 10 s after the last
failure, twice as long with each failed pod since the last that succeeded, up to 10 minutes
(`newBackoffRecord` in Kubernetes' pkg/controller/job/backoff_utils.go). Pods that somebody deletes
count, failures that a policy ignores too; those that a suspension deletes do not, but a resume
waits for what failed before. No field of a Job turns it off. So the operator makes the pod itself,
owned by the Job, which then finds no slot empty:

    pod failed ──► pod made here ──► counted by the Job ──► … back-off over: nothing to do

While it waits, the Job controller counts nothing where other pods are ready: it reports 0 active
pods, and the API server takes no status with fewer active than ready ones (Kubernetes 1.35). So
what has failed is known from the pods as well as from the Job's count, which deleted ones outlive.
Where both make a pod for one slot, the Job controller removes one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pretrain_llm.contract import exit_codes

from . import pod_facts, stages
from .api.status import RunStatus
from .case import Case
from .manifests.metadata import Object
from .manifests.replacement import replacement_pod
from .observed import KubernetesObject

# Of one slot within this time: what fails again and again is the Job's to slow down.
_FAST_FAILURES = 10
_FAST_SECONDS = 600.0
_ENDING = ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget")


def replacements(case: Case, status: RunStatus) -> Iterator[Object]:
    """Pods for the vacant slots of the current attempt's Job, in their order."""
    job = case.training_job(status)
    if job is None or not _wants_pods(job):
        return
    pods = stages.job_pods(case, job)
    failed = [pod for pod in pods if pod_facts.phase(pod) == "Failed"]
    counted = job.get("status", {}).get("failed", 0)
    if not failed and not counted:
        return  # nor does it back off: it is making its first pods
    if any(_is_final(pod) for pod in failed):
        return  # it is about to fail
    taken = {pod_facts.slot(pod) for pod in pods if pod_facts.phase(pod) != "Failed"}
    for slot in range(job["spec"]["completions"]):
        before = [pod for pod in failed if pod_facts.slot(pod) == str(slot)]
        if str(slot) not in taken and _is_slow(case, before):
            yield replacement_pod(job, slot, before)


def _wants_pods(job: KubernetesObject) -> bool:
    is_ending = any(pod_facts.holds(job, kind) for kind in _ENDING)
    return not (is_ending or pod_facts.is_deleting(job) or job["spec"].get("suspend"))


def _is_final(pod: KubernetesObject) -> bool:
    ended = pod_facts.termination(pod)
    return ended is not None and ended.exit_code in exit_codes.FINAL


def _is_slow(case: Case, failed: Sequence[KubernetesObject]) -> bool:
    """Whether not too much has failed of late."""
    recent = [pod for pod in failed if case.now - pod_facts.ended_at(pod) < _FAST_SECONDS]
    return len(recent) < _FAST_FAILURES
