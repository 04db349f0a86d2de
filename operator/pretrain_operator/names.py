"""Names of a run's children, and the labels and annotations they are found by. Pure.

A run's name has at most 40 characters (see api.rules), so that every name here is a DNS label.
"""

from __future__ import annotations

RUN_LABEL = "pretrain.dev/run"
COMPONENT_LABEL = "pretrain.dev/component"
ATTEMPT_LABEL = "pretrain.dev/attempt"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "pretrain-operator"

# Digest of the whole desired object: an unchanged child costs no API call.
APPLIED_ANNOTATION = "pretrain.dev/applied"
# Digest of what a Job was made from, as far as the run's own spec and status say it: a Job whose
# inputs changed is made anew, one that merely a newer operator would write otherwise is not.
INPUTS_ANNOTATION = "pretrain.dev/inputs"


def config_map(run: str, digest: str) -> str:
    """Content-addressed: pods that started with one configuration keep it."""
    return f"{run}-config-{digest[:8]}"


def coordinator(run: str) -> str:
    return f"{run}-coordinator"


def training_service(run: str) -> str:
    return f"{run}-train"


def training_job(run: str, attempt: int) -> str:
    return f"{run}-train-{attempt}"


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
