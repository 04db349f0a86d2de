"""The stages of a run, derived from its spec and its artifacts; never stored as a phase. Pure.

    Data ─► Training ─► Export ─► PostTraining[0] ─► … ─► Serving
            Training                                                  of a script: nothing else

The current stage is the first without an artifact; Serving has none and comes after all others.
An artifact is never taken back, so a finished stage stays finished, whatever becomes of its Job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pretrain_llm.contract import exit_codes
from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.results import StageError, StageResult
from pretrain_llm.contract.status import StatusDocument

from . import conditions, config, names, pod_facts
from .api.spec import AnySpec, RunSpec, ScriptSpec
from .api.status import Artifact, RunStatus, StageTime
from .case import Case
from .manifests.inputs import stage_digest
from .manifests.later import StageJob
from .manifests.metadata import annotation
from .observed import KubernetesObject
from .pod_facts import Termination
from .times import epoch_seconds, timestamp

Kind = Literal["Data", "Training", "Export", "PostTraining", "Serving"]

# The last losses are at the coordinator; how long a finished Job waits for its answer.
_LAST_WORDS_SECONDS = 30.0


@dataclass(frozen=True)
class Stage:
    kind: Kind
    name: str | None = None  # of the entry of postTraining


@dataclass(frozen=True)
class Stop:
    """Why a run does not go on by itself."""

    state: str  # one of conditions.STOPPED
    message: str


def stages(spec: AnySpec) -> tuple[Stage, ...]:
    if isinstance(spec, ScriptSpec):
        return (Stage("Training"),)
    later = tuple(Stage("PostTraining", entry.name) for entry in spec.post_training)
    last = (Stage("Serving"),) if spec.serving else ()
    return (Stage("Data"), Stage("Training"), Stage("Export"), *later, *last)


def artifact(status: RunStatus, stage: Stage) -> Artifact | None:
    found = (a for a in status.artifacts if (a.stage, a.name) == (stage.kind, stage.name))
    return next(found, None)


def current(spec: AnySpec, status: RunStatus) -> Stage | None:
    """None where every stage is finished and none serves."""
    return next((stage for stage in stages(spec) if artifact(status, stage) is None), None)


def exported(spec: AnySpec, status: RunStatus) -> tuple[Artifact, ...]:
    """Finished folders that can be served or trained further, in the order of the spec."""
    makers = (stage for stage in stages(spec) if stage.kind in ("Export", "PostTraining"))
    return tuple(found for stage in makers if (found := artifact(status, stage)) is not None)


def served(spec: AnySpec, status: RunStatus) -> Artifact | None:
    """The artifact to serve: once everything is finished, or as long as something was served."""
    finished = exported(spec, status)
    stage = current(spec, status)
    is_due = stage is None or stage.kind == "Serving" or status.serving is not None
    if spec.serving is None or not finished or not is_due:
        return None
    source = spec.serving.source
    if source == "last":
        return finished[-1]
    wanted = Stage("Export") if source == "export" else Stage("PostTraining", source)
    return artifact(status, wanted)


# The Job of a stage


def stage_job(case: Case, status: RunStatus, stage: Stage) -> StageJob:
    """What the Job of Data, Export or PostTraining is made from."""
    spec, common = case.spec, case.config
    assert isinstance(spec, RunSpec)
    assert isinstance(common, RunConfig)
    if stage.kind == "Data":
        return _data_job(case, spec, common, status)
    if stage.kind == "Export":
        return _export_job(case, common, status)
    return _post_training_job(case, common, status, stage)


def _data_job(case: Case, spec: RunSpec, common: RunConfig, status: RunStatus) -> StageJob:
    own = spec.data.template
    return StageJob(
        name=names.data_job(case.run.name),
        component="data",
        module="pretrain_llm.data",
        own=own,
        field="spec.data.template",
        config=config.before_export(common),
        inputs=stage_digest(case.spec, own, status.retries),
    )


def _export_job(case: Case, common: RunConfig, status: RunStatus) -> StageJob:
    own = case.spec.export.template
    trained = artifact(status, Stage("Training"))
    source = trained.path if trained else None
    soup = case.spec.export.soup
    asked = (source,) if soup is None else (source, soup.model_dump(mode="json"))
    return StageJob(
        name=names.export_job(case.run.name),
        component="export",
        module="pretrain_llm.export",
        own=own,
        field="spec.export.template",
        config=config.for_export(common),
        inputs=stage_digest(case.spec, own, status.retries, *asked),
        source=source,
    )


def _post_training_job(case: Case, common: RunConfig, status: RunStatus, stage: Stage) -> StageJob:
    name = stage.name
    assert name is not None
    entries = case.spec.post_training
    index, entry = next((i, entry) for i, entry in enumerate(entries) if entry.name == name)
    source = exported(case.spec, status)[-1].path
    asked = entry.model_dump(mode="json", exclude_defaults=True)
    return StageJob(
        name=names.post_training_job(case.run.name, name),
        component="postTraining",
        module="pretrain_llm.post_train",
        own=entry.template,
        field=f"spec.postTraining[{index}].template",
        config=config.for_post_training(common, name),
        inputs=stage_digest(case.spec, entry.template, status.retries, source, asked),
        stage_name=name,
        source=source,
        uses_device=True,
    )


def own_job(case: Case, job: StageJob) -> KubernetesObject | None:
    """The observed Job, if it was made from these very inputs and is not on its way out."""
    found = case.observed.get("Job", job.name)
    if found is None or pod_facts.is_deleting(found):
        return None
    return found if annotation(found, names.INPUTS_ANNOTATION) == job.inputs else None


def job_pods(case: Case, job: KubernetesObject) -> list[KubernetesObject]:
    uid = job["metadata"].get("uid")
    return [
        pod
        for pod in case.observed.of_kind("Pod")
        if any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences") or ())
    ]


def result_of(case: Case, job: KubernetesObject) -> StageResult | None:
    """What a complete Job's pod left; None where the pod is gone."""
    ended = (pod_facts.termination(pod) for pod in job_pods(case, job))
    return next((end.result for end in ended if end is not None and end.result), None)


def is_lost(case: Case, job: KubernetesObject) -> bool:
    """Complete, but what it said is gone: run again, the stage finds its result on the volume."""
    return pod_facts.holds(job, "Complete") and result_of(case, job) is None


# Folds into the status


def with_finished(case: Case, status: RunStatus) -> RunStatus:
    """With an artifact for the current stage, if it has ended well."""
    stage = current(case.spec, status)
    if stage is None or stage.kind == "Serving":
        return status
    made = _trained(case, status) if stage.kind == "Training" else _made(case, status, stage)
    if made is None:
        return status
    return status.model_copy(update={"artifacts": (*status.artifacts, made)})


def failure(case: Case, status: RunStatus) -> Stop | None:
    """Why the Job of the current stage has failed for good. Training's is in `restarts`."""
    stage = current(case.spec, status)
    if stage is None or stage.kind in ("Training", "Serving"):
        return None
    job = own_job(case, stage_job(case, status, stage))
    if job is None or not pod_facts.holds(job, "Failed"):
        return None
    ended = [end for pod in job_pods(case, job) if (end := pod_facts.termination(pod)) is not None]
    title = stage.kind if stage.name is None else f"{stage.kind} {stage.name}"
    if not ended:
        found = pod_facts.condition(job, "Failed") or {}
        return Stop(conditions.STAGE_FAILED, f"{title}: {found.get('message', 'the Job failed')}")
    last = max(ended, key=lambda end: (end.finished_at, end.exit_code))
    return Stop(_failure_state(last), f"{title}: {last.words}")


def with_times(case: Case, status: RunStatus) -> RunStatus:
    """With the start of the current stage and the end of those that have finished."""
    known = {(entry.stage, entry.name) for entry in status.stages}
    ended = tuple(_ended(status, entry) for entry in status.stages)
    stage = current(case.spec, status)
    if stage is not None and (stage.kind, stage.name) not in known and not case.spec.suspend:
        begun = StageTime(stage=stage.kind, name=stage.name, started_at=timestamp(case.now))
        ended = (*ended, begun)
    return status.model_copy(update={"stages": ended})


def _ended(status: RunStatus, entry: StageTime) -> StageTime:
    if entry.finished_at is not None:
        return entry
    if entry.stage == "Serving":
        served = conditions.condition(status, conditions.STAGE_CONDITIONS["Serving"])
        is_served = served is not None and served.status == "True"
        end = served.last_transition_time if served and is_served else None
    else:
        found = (a for a in status.artifacts if (a.stage, a.name) == (entry.stage, entry.name))
        end = next((a.time for a in found), None)
    return entry.model_copy(update={"finished_at": end})


def _made(case: Case, status: RunStatus, stage: Stage) -> Artifact | None:
    job = own_job(case, stage_job(case, status, stage))
    if job is None or not pod_facts.holds(job, "Complete"):
        return None
    result = result_of(case, job)
    if result is None:
        return None
    return Artifact(
        stage=stage.kind,
        name=stage.name,
        path=result.path,
        digest=result.digest,
        step=result.step,
        source=result.source_digests,
        mean_of=result.mean_of,
        metrics=result.metrics,
        time=_completion_time(case, job),
    )


def _trained(case: Case, status: RunStatus) -> Artifact | None:
    """Training ends with its Job: all slots, spares included, ended with 0."""
    job = case.training_job(status)
    if status.attempt == 0 or job is None or not pod_facts.holds(job, "Complete"):
        return None
    ended = _completion_time(case, job)
    document = case.document(status)
    is_silent = document is None and bool(case.live_pods("coordinator"))
    if is_silent and case.now - epoch_seconds(ended) < _LAST_WORDS_SECONDS:
        return None
    last = document.progress if document else None
    data = artifact(status, Stage("Data"))
    step, path = _last_checkpoint(case, status, document)
    return Artifact(
        stage="Training",
        path=path,
        step=step,
        source=(data.digest,) if data and data.digest else (),
        metrics={"loss": last.loss, "tokens": float(last.tokens)} if last else {},
        time=ended,
    )


def _last_checkpoint(
    case: Case, status: RunStatus, document: StatusDocument | None
) -> tuple[int | None, str]:
    """Its step and folder: torchtitan always saves the last step, a script what it wants."""
    if isinstance(case.config, RunConfig):
        steps = case.config.training.steps
        return steps, str(case.config.layout.checkpoint(steps))
    told = document.latest_checkpoint if document else None
    known = told or status.checkpoints.latest
    return (known.step, known.path) if known else (None, str(case.config.layout.checkpoints))


def _completion_time(case: Case, job: KubernetesObject) -> str:
    return str(job.get("status", {}).get("completionTime") or timestamp(case.now))


def _failure_state(end: Termination) -> str:
    error: StageError | None = end.error
    code = error.exit_code if error is not None else end.exit_code
    if end.out_of_memory or code == exit_codes.OUT_OF_MEMORY:
        return conditions.OUT_OF_MEMORY
    return {
        exit_codes.BAD_INPUT: conditions.BAD_INPUT,
        exit_codes.DO_NOT_RESTART: conditions.DO_NOT_RESTART,
    }.get(code, conditions.STAGE_FAILED)
