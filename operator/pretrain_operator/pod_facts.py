"""Reads pods, Jobs and nodes as the API gives them. Pure; knows no run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pretrain_llm.contract import codec
from pretrain_llm.contract.results import StageError, StageResult, TerminationMessage

from . import names
from .observed import KubernetesObject
from .times import epoch_seconds

_SHOWN_LOG_CHARACTERS = 600
_IMAGE_PROBLEMS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CRASHES = 2  # from then on the kubelet backs off
_CONFIG_PROBLEMS = ("CreateContainerConfigError", "CreateContainerError")


@dataclass(frozen=True)
class Termination:
    """How a pod's container ended."""

    exit_code: int
    reason: str  # Completed | Error | OOMKilled | …
    message: str
    finished_at: str

    @property
    def out_of_memory(self) -> bool:
        """The kernel's OOM killer, for the container's memory limit."""
        return self.reason == "OOMKilled"

    @property
    def result(self) -> StageResult | None:
        return self._document().result

    @property
    def error(self) -> StageError | None:
        return self._document().error

    @property
    def words(self) -> str:
        """For the user: the program's own error, or the end of its log."""
        if (error := self.error) is not None:
            return str(error)
        text = self.message.strip()[-_SHOWN_LOG_CHARACTERS:]
        return text or f"exit code {self.exit_code} ({self.reason})"

    def _document(self) -> TerminationMessage:
        try:
            return codec.from_json(TerminationMessage, self.message)
        except codec.DecodeError:
            return TerminationMessage()


@dataclass(frozen=True)
class Problem:
    """Why a pod does not start; it heals when somebody acts."""

    reason: str  # a waiting state of `conditions`
    message: str


def termination(pod: KubernetesObject) -> Termination | None:
    """Of the container that did not end well, or else of the only one; None while it runs."""
    ended = [
        state
        for status in _container_statuses(pod)
        if (state := status.get("state", {}).get("terminated")) is not None
    ]
    if not ended:
        return None
    state = next((item for item in ended if item.get("exitCode")), ended[-1])
    return Termination(
        exit_code=state.get("exitCode", 0),
        reason=state.get("reason", ""),
        message=state.get("message", ""),
        finished_at=state.get("finishedAt") or "",
    )


def created_at(pod: KubernetesObject) -> float:
    """Seconds since the epoch."""
    return epoch_seconds(pod["metadata"]["creationTimestamp"])


def ended_at(pod: KubernetesObject) -> float:
    """Seconds since the epoch; when it was made, where nobody saw its end."""
    ended = termination(pod)
    return epoch_seconds(ended.finished_at) if ended and ended.finished_at else created_at(pod)


def is_live(pod: KubernetesObject) -> bool:
    return phase(pod) not in ("Succeeded", "Failed")


def phase(pod: KubernetesObject) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def slot(pod: KubernetesObject) -> str | None:
    """Completion index of an Indexed Job's pod."""
    labels = pod["metadata"].get("labels", {})
    value: str | None = labels.get(names.SLOT_LABEL)
    return value


def node_name(pod: KubernetesObject) -> str | None:
    value: str | None = pod.get("spec", {}).get("nodeName")
    return value


def memory_limit(pod: KubernetesObject) -> str | None:
    """Of the main container, as the spec writes it."""
    containers: list[KubernetesObject] = pod.get("spec", {}).get("containers") or [{}]
    value: str | None = containers[0].get("resources", {}).get("limits", {}).get("memory")
    return value


def disruption(pod: KubernetesObject) -> str | None:
    """Why the pod was taken away from outside: the reason of its DisruptionTarget condition."""
    found = condition(pod, "DisruptionTarget")
    if found is not None and found.get("status") == "True":
        return str(found.get("reason", "Disrupted"))
    return "Evicted" if pod.get("status", {}).get("reason") == "Evicted" else None


def disruption_words(pod: KubernetesObject) -> str | None:
    """Of whoever took the pod away."""
    found = condition(pod, "DisruptionTarget") or {}
    words = pod.get("status", {}).get("message") or found.get("message")
    return str(words) if words else None


def problem(pod: KubernetesObject, template_field: str) -> Problem | None:
    """The first thing that keeps a pod from running, in words, with what to do.

    `template_field`: where the spec overrides this pod, for example spec.nodes.template.
    """
    name = pod["metadata"]["name"]
    scheduled = condition(pod, "PodScheduled")
    if scheduled and scheduled.get("reason") == "Unschedulable" and not node_name(pod):
        text = f"pod {name}: {scheduled.get('message', '')}"
        return Problem("Unschedulable", f"{text} Add nodes, or lower what the pod asks for.")
    for status in _container_statuses(pod):
        found = _waiting_problem(name, status, template_field)
        if found is not None or (found := _crash_loop(name, status)) is not None:
            return found
    return None


def _waiting_problem(pod: str, status: dict[str, Any], template_field: str) -> Problem | None:
    waiting = status.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _IMAGE_PROBLEMS:
        text = f"pod {pod} cannot pull image {status.get('image')}: {message or reason}."
        remedy = (
            f"Set {template_field}.image to one that is there, push this one, or name a Secret"
            f" for its registry in {template_field}.imagePullSecrets."
        )
        return Problem("ImagePullFailed", f"{text} {remedy}")
    if reason in _CONFIG_PROBLEMS:
        text = f"pod {pod}: {message or reason}."
        return Problem(
            "ContainerConfigFailed", f"{text} Create what it names, or correct {template_field}."
        )
    return None


def _crash_loop(pod: str, status: dict[str, Any]) -> Problem | None:
    """A container that is not ready between two crashes loops on, whatever it does at the moment.

    running ─► terminated ─► CrashLoopBackOff ─► running ─► … ─► ready: over
    """
    waiting = status.get("state", {}).get("waiting") or {}
    last = status.get("lastState", {}).get("terminated") or {}
    is_again = status.get("restartCount", 0) >= _CRASHES and bool(last.get("exitCode"))
    if waiting.get("reason") != "CrashLoopBackOff" and (status.get("ready") or not is_again):
        return None
    ended = Termination(
        last.get("exitCode", 0), last.get("reason", ""), last.get("message", ""), ""
    )
    return Problem("CrashLooping", f"pod {pod}, container {status['name']}: {ended.words}")


def condition(item: KubernetesObject, kind: str) -> dict[str, Any] | None:
    conditions = item.get("status", {}).get("conditions") or ()
    return next((entry for entry in conditions if entry["type"] == kind), None)


def holds(item: KubernetesObject, kind: str) -> bool:
    """Whether a condition is True."""
    found = condition(item, kind)
    return found is not None and found.get("status") == "True"


def is_finished(job: KubernetesObject) -> bool:
    return holds(job, "Complete") or holds(job, "Failed")


def is_deleting(item: KubernetesObject) -> bool:
    return item["metadata"].get("deletionTimestamp") is not None


def _container_statuses(pod: KubernetesObject) -> list[dict[str, Any]]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
