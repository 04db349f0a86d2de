"""The children that a run should have, and those that it should not. Pure.

Wanted objects are a function of (spec, status); which of them need a call is a function of what was
observed: an object whose digest is unchanged costs none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from pretrain_llm.contract.config import AnyConfig

from . import config, exclusion, lost_pods, names, pod_facts, stages, vacancies
from .api.spec import AnySpec
from .api.status import RunStatus
from .case import Case
from .conditions import is_stopped
from .manifests import inputs, later, serving, storage, templates, training
from .manifests.jobs import with_suspend
from .manifests.metadata import Object, annotation, component
from .observed import KubernetesObject, ObjectKey, Run
from .planned import Deletion
from .settings import Settings
from .stages import Stage

_STAGE_COMPONENTS = ("data", "export", "postTraining")
_ATTEMPT_COMPONENTS = (training.COMPONENT, training.COORDINATOR)
_NO_STATUS = RunStatus()
# Runs whose objects are not made again in every pass. What they share nobody changes in place.
_KEPT = 1024


def wanted(case: Case, status: RunStatus, settings: Settings) -> list[Object]:
    """In the order in which they are applied. Raises SpecError where a pod has no image."""
    _check_images(case.spec, settings)
    objects: list[Object] = []
    if (claim := storage.claim(case.run)) is not None:
        objects.append(claim)
    stage = stages.current(case.spec, status)
    if stage is not None and stage.kind == "Training":
        objects += _training(case, status, settings)
    elif stage is not None and stage.kind != "Serving":
        objects += _stage(case, status, stage, settings)
    if (made := stages.served(case.spec, status)) is not None:
        objects += _serving_objects(_identity(case.run), settings, made.path)
    return objects


def is_halted(case: Case, status: RunStatus) -> bool:
    """Whether pods that hold devices should go."""
    return case.spec.suspend or is_stopped(status)


@lru_cache(maxsize=_KEPT)
def _check_images(spec: AnySpec, settings: Settings) -> None:
    """Of all stages: a missing image is told at once, not after weeks of training."""
    if spec.data is not None:
        templates.merged(settings, "data", spec.data.template, "spec.data.template")
    templates.merged(settings, "training", spec.nodes.template, "spec.nodes.template")
    if spec.script is not None:  # its only stage
        return
    templates.merged(settings, "export", spec.export.template, "spec.export.template")
    for index, entry in enumerate(spec.post_training):
        field = f"spec.postTraining[{index}].template"
        templates.merged(settings, "postTraining", entry.template, field)
    if spec.serving is not None:
        templates.merged(settings, "serving", spec.serving.template, "spec.serving.template")


def _identity(run: Run) -> Run:
    """What of a run its children are made from: its status comes to them as arguments."""
    return replace(run, generation=0, status=_NO_STATUS)


def _stage(case: Case, status: RunStatus, stage: Stage, settings: Settings) -> tuple[Object, ...]:
    job = stages.stage_job(case, status, stage)
    return _stage_objects(_identity(case.run), job, settings, is_halted(case, status))


@lru_cache(maxsize=_KEPT)
def _stage_objects(
    run: Run, job: later.StageJob, settings: Settings, suspend: bool
) -> tuple[Object, ...]:
    return (
        inputs.config_map(run, job.config),
        later.stage_job(run, job, settings, suspend=suspend),
    )


def _training(case: Case, status: RunStatus, settings: Settings) -> tuple[Object, ...]:
    if status.attempt == 0:
        return ()
    return _training_objects(
        _identity(case.run),
        config.before_export(case.config),
        settings,
        _Attempt(
            status.attempt,
            inputs=status.config_digest or "",
            suspend=is_halted(case, status),
            needs_coordinator=_needs_coordinator(case, status),
            avoided=tuple(entry.name for entry in status.excluded_nodes),
        ),
    )


@dataclass(frozen=True)
class _Attempt:
    number: int
    inputs: str  # digest of what it is made from
    suspend: bool
    needs_coordinator: bool
    avoided: tuple[str, ...]  # names of nodes


@lru_cache(maxsize=_KEPT)
def _training_objects(
    run: Run, common: AnyConfig, settings: Settings, attempt: _Attempt
) -> tuple[Object, ...]:
    job = training.training_job(
        run,
        common,
        settings,
        attempt=attempt.number,
        inputs=attempt.inputs,
        suspend=attempt.suspend,
        avoided=attempt.avoided,
    )
    objects = (inputs.config_map(run, common), training.training_service(run), job)
    if not attempt.needs_coordinator:
        return objects
    return (
        objects[0],
        training.coordinator_service(run),
        training.coordinator(run, common, settings, attempt.number),
        *objects[1:],
    )


@lru_cache(maxsize=_KEPT)
def _serving_objects(run: Run, settings: Settings, path: str) -> tuple[Object, ...]:
    return serving.service(run), serving.deployment(run, settings, path)


def _needs_coordinator(case: Case, status: RunStatus) -> bool:
    """Agents that are saving still need it."""
    return not is_halted(case, status) or bool(case.live_pods("training"))


# What needs a call


def applied(case: Case, status: RunStatus, objects: list[Object]) -> Iterator[Object]:
    """Of the wanted objects those that are not there as they should be."""
    for desired in objects:
        key = ObjectKey(desired["kind"], desired["metadata"]["name"])
        found = case.observed.objects.get(key)
        if desired["kind"] == "Job":
            yield from _applied_job(case, status, desired, found)
        elif desired["kind"] == "PersistentVolumeClaim":
            if found is None:
                yield desired
        elif (found is None or _has_drifted(desired, found)) and not _is_blocked(
            case, status, desired
        ):
            yield desired


def _applied_job(
    case: Case, status: RunStatus, desired: Object, found: KubernetesObject | None
) -> Iterator[Object]:
    suspend = desired["spec"]["suspend"]
    if found is None:
        if not suspend and not _is_blocked(case, status, desired):
            yield desired
        return
    if pod_facts.is_deleting(found) or pod_facts.is_finished(found) or _is_stale(desired, found):
        return
    if bool(found["spec"].get("suspend", False)) != suspend:
        yield with_suspend(found, suspend)


def created(case: Case, status: RunStatus, objects: list[Object]) -> Iterator[Object]:
    """Pods that the Job would make too, but later."""
    trains = any(
        item["kind"] == "Job" and component(item) == training.COMPONENT for item in objects
    )
    if trains and not is_halted(case, status):
        yield from vacancies.replacements(case, status)


def _is_blocked(case: Case, status: RunStatus, desired: Object) -> bool:
    """Two attempts never live at once: the pods of the last one must be gone first, and as long as
    they save, their coordinator stays.
    """
    if desired["kind"] == "Service" or component(desired) not in _ATTEMPT_COMPONENTS:
        return False
    own = str(status.attempt)
    labels = (pod["metadata"]["labels"] for pod in case.live_pods(training.COMPONENT))
    return any(label.get(names.ATTEMPT_LABEL) != own for label in labels) or any(
        not pod_facts.is_finished(job) for job in _older_attempts(case, status)
    )


def _has_drifted(desired: Object, found: KubernetesObject) -> bool:
    """Another form is wanted, or somebody scaled it by hand. A coordinator is its attempt's: agents
    and coordinator of one attempt are of one version.
    """
    if component(desired) == training.COORDINATOR and desired["kind"] == "Deployment":
        old, new = (item["metadata"]["labels"][names.ATTEMPT_LABEL] for item in (found, desired))
    else:
        old, new = (annotation(item, names.APPLIED_ANNOTATION) for item in (found, desired))
    if old != new:
        return True
    replicas = desired.get("spec", {}).get("replicas")
    return replicas is not None and found["spec"].get("replicas") != replicas


def _is_stale(desired: Object, found: KubernetesObject) -> bool:
    name = names.INPUTS_ANNOTATION
    return annotation(found, name) != annotation(desired, name)


# What should not be there


def deleted(
    case: Case, status: RunStatus, objects: list[Object], settings: Settings
) -> Iterator[Deletion]:
    for pod in lost_pods.lost_pods(case, status, settings):
        yield _deletion(pod, grace_seconds=0)
    yield from _pods_on_excluded_nodes(case, status)
    yield from (_deletion(job) for job in _older_attempts(case, status))
    yield from _stale_stage_jobs(case, objects)
    kept = {ObjectKey(item["kind"], item["metadata"]["name"]) for item in objects}
    for kind in ("Deployment", "Service"):
        for item in case.observed.of_kind(kind):
            if ObjectKey(kind, item["metadata"]["name"]) not in kept:
                yield from _unless_deleting(item)


def _older_attempts(case: Case, status: RunStatus) -> list[KubernetesObject]:
    own = names.training_job(case.run.name, status.attempt)
    return [
        job
        for job in case.observed.of_kind("Job")
        if component(job) == training.COMPONENT
        and job["metadata"]["name"] != own
        and not pod_facts.is_deleting(job)
    ]


def _stale_stage_jobs(case: Case, objects: list[Object]) -> Iterator[Deletion]:
    """Made from other inputs, or finished without a word left; of finished stages all are kept."""
    by_name = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Job"}
    for job in case.observed.of_kind("Job"):
        if component(job) not in _STAGE_COMPONENTS or pod_facts.is_deleting(job):
            continue
        desired = by_name.get(job["metadata"]["name"])
        if desired is None:
            if not pod_facts.is_finished(job):
                yield _deletion(job)
        elif _is_stale(desired, job) or stages.is_lost(case, job):
            yield _deletion(job)


def _pods_on_excluded_nodes(case: Case, status: RunStatus) -> Iterator[Deletion]:
    """They save and leave; a spare steps in, and the Job makes others where the mark is not."""
    for pod in case.live_pods(training.COMPONENT):
        if exclusion.is_marked(case, status, pod):
            yield from _unless_deleting(pod)


def _unless_deleting(item: KubernetesObject) -> Iterator[Deletion]:
    if not pod_facts.is_deleting(item):
        yield _deletion(item)


def _deletion(item: KubernetesObject, grace_seconds: int | None = None) -> Deletion:
    metadata = item["metadata"]
    return Deletion(ObjectKey(item["kind"], metadata["name"]), grace_seconds, metadata.get("uid"))
