"""Names of a run's children, and the labels and annotations they are found by. Pure.

A run's name has at most 40 characters (see api.rules), so that every name here is a DNS label.
"""

from __future__ import annotations

RUN_LABEL = "pretrain.dev/run"
COMPONENT_LABEL = "pretrain.dev/component"
ATTEMPT_LABEL = "pretrain.dev/attempt"
# On runs that `pretrain sweep` made: the sweep's name, and the values by path, as JSON.
SWEEP_LABEL = "pretrain.dev/sweep"
SWEEP_VALUES_ANNOTATION = "pretrain.dev/sweep-values"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "pretrain-operator"

# On Nodes, with the time of their end in seconds since the epoch.
EXCLUDED_LABEL = "pretrain.dev/excluded"  # from all runs; also the key of the taint
# Somebody mended the node then (seconds since the epoch): what was before counts no more.
REPAIRED_LABEL = "pretrain.dev/repaired-at"

SLOT_LABEL = "batch.kubernetes.io/job-completion-index"  # of a training pod, also an annotation

# Why the operator gives a pod up, as the reason of its condition DisruptionTarget.
NODE_LOST = "NodeLost"
NODE_LOST_WORDS = "pretrain-operator: node and agent do not answer"

# Digest of the whole desired object: an unchanged child costs no API call.
APPLIED_ANNOTATION = "pretrain.dev/applied"
# Digest of what a Job was made from, as far as the run's own spec and status say it: a Job whose
# inputs changed is made anew, one that merely a newer operator would write otherwise is not.
INPUTS_ANNOTATION = "pretrain.dev/inputs"


def excluded_from_label(run_uid: str) -> str:
    """On Nodes: excluded from this run alone."""
    return f"{EXCLUDED_LABEL}-from-{run_uid}"


def config_map(run: str, digest: str) -> str:
    """Content-addressed: pods that started with one configuration keep it."""
    return f"{run}-config-{digest[:8]}"


def coordinator(run: str) -> str:
    return f"{run}-coordinator"


def training_service(run: str) -> str:
    return f"{run}-train"


def training_job(run: str, attempt: int) -> str:
    return f"{run}-train-{attempt}"


def replacement_pod(job: str, slot: int, vacancy: str) -> str:
    """As long as the Job controller's own."""
    return f"{job}-{slot}-{vacancy[:5]}"


def data_job(run: str) -> str:
    return f"{run}-data"


def export_job(run: str) -> str:
    return f"{run}-export"


def post_training_job(run: str, name: str) -> str:
    return f"{run}-post-{name}"


def serving(run: str) -> str:
    return f"{run}-serve"


def service_host(service: str, namespace: str, cluster_domain: str) -> str:
    return f"{service}.{namespace}.svc.{cluster_domain}"
