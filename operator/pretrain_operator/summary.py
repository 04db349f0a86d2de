"""The conditions of a run: what it is doing, what it waits for, how far it is. Pure."""

from __future__ import annotations

from dataclasses import replace

from pretrain_llm.contract.status import StatusDocument

from . import conditions, pod_facts, stages
from .api.status import RunStatus, ServingStatus
from .case import Case
from .conditions import STAGE_CONDITIONS
from .manifests import serving as serving_manifests
from .manifests.training import COORDINATOR
from .names import REPAIRED_LABEL
from .pod_facts import Problem
from .settings import Settings
from .stages import Stage, Stop

_COMPONENTS = {
    "Data": ("data",),
    "Training": ("training", "coordinator"),
    "Export": ("export",),
    "PostTraining": ("postTraining",),
    "Serving": ("serving",),
}
_WORKING = {
    "Data": conditions.PREPARING_DATA,
    "Export": conditions.EXPORTING,
    "PostTraining": conditions.POST_TRAINING,
    "Serving": conditions.DEPLOYING,
}


def with_serving(case: Case, status: RunStatus, settings: Settings) -> RunStatus:
    """Where the model answers; nothing where it is not to be served."""
    if stages.served(case.spec, status) is None:
        return status.model_copy(update={"serving": None})
    deployment = case.observed.get("Deployment", serving_manifests.name(case.run))
    ready = deployment.get("status", {}).get("readyReplicas", 0) if deployment else 0
    shown = ServingStatus(
        url=serving_manifests.serving_url(case.run, settings),
        model=case.run.name,
        ready_replicas=ready,
    )
    return status.model_copy(update={"serving": shown})


def with_conditions(case: Case, status: RunStatus, stop: Stop | None) -> RunStatus:
    state, message = (stop.state, stop.message) if stop else _state(case, status)
    after = conditions.with_state(
        status, state, message, generation=case.run.generation, now=case.now
    )
    return _with_stage_conditions(case, after, state, message)


def invalid(status: RunStatus, message: str, *, generation: int, now: float) -> RunStatus:
    """A spec that no configuration can be made from. What runs, runs on."""
    return conditions.with_state(
        status, conditions.INVALID_SPEC, message, generation=generation, now=now
    )


# The summary


def _state(case: Case, status: RunStatus) -> tuple[str, str]:
    """State and message of a run that is not stopped."""
    stage = stages.current(case.spec, status)
    if case.spec.suspend:
        return _suspension(case)
    if stage is None:
        return conditions.COMPLETED, f"the model is at {_last_path(case, status)}"
    if stage.kind == "Serving" and is_served(case, status):
        return conditions.SERVING, f"{case.run.name} answers at {_url(status)}"
    if (missing := claim_problem(case)) is not None:
        return missing.reason, missing.message
    problem = _pod_problem(case, status, stage)
    if stage.kind == "Training" and _is_training(case, status):
        return conditions.TRAINING, _training_message(status, problem)
    if problem is not None:
        return problem.reason, problem.message
    if stage.kind == "Training":
        return _training_state(case, status)
    return _WORKING[stage.kind], _working_message(stage)


def _suspension(case: Case) -> tuple[str, str]:
    components = (name for names in _COMPONENTS.values() for name in names)
    left = case.live_pods(*(name for name in components if name != COORDINATOR))
    if left:
        return conditions.SUSPENDING, "saving, then stopping; set spec.suspend false to go on"
    return conditions.SUSPENDED, "no device is held; set spec.suspend false to go on"


def _training_state(case: Case, status: RunStatus) -> tuple[str, str]:
    """Before it steps: what the coordinator says; what was said last while it is silent."""
    document = case.document(status)
    title = f"attempt {status.attempt}"
    if document is None:
        return _silent_state(status), title
    if _is_recovering(document):
        waiting = f", waiting for {document.waiting_for}" if document.waiting_for else ""
        state = conditions.RECOVERING if document.incidents else conditions.STARTING
        return state, f"{title}{waiting}"
    return conditions.STARTING, title


def _is_training(case: Case, status: RunStatus) -> bool:
    """A coordinator that is silent for a while changes nothing."""
    document = case.document(status)
    if document is None:
        return conditions.state(status) == conditions.TRAINING
    return document.progress is not None and not _is_recovering(document)


def _training_message(status: RunStatus, problem: Problem | None) -> str:
    """A pod that cannot start keeps no round from stepping: it is missed as a node, or a spare."""
    words = f"attempt {status.attempt}"
    training = status.training
    if training and training.wanted_nodes and training.nodes < training.wanted_nodes:
        words += f", on {training.nodes} of {training.wanted_nodes} nodes"
    return words if problem is None else f"{words}; one more waits: {problem.message}"


def _silent_state(status: RunStatus) -> str:
    known = conditions.state(status)
    going_on = (conditions.TRAINING, conditions.RECOVERING)
    return known if known in going_on else conditions.STARTING


def _is_recovering(document: StatusDocument) -> bool:
    is_open = bool(document.incidents) and document.incidents[-1].first_step_seconds is None
    return not document.finished and (document.broken or is_open)


def _working_message(stage: Stage) -> str:
    return f"stage {stage.kind}" if stage.name is None else f"stage {stage.kind} {stage.name}"


# What keeps it from going on


def claim_problem(case: Case) -> Problem | None:
    """A claim that is not there, and that the run does not ask to be made."""
    storage = case.spec.storage
    if storage.create or case.observed.get("PersistentVolumeClaim", storage.claim_name):
        return None
    return Problem(
        conditions.STORAGE_NOT_FOUND,
        f"spec.storage.claimName {storage.claim_name}: there is no such PersistentVolumeClaim in"
        f" namespace {case.run.namespace}; create it, or set spec.storage.create.",
    )


def _pod_problem(case: Case, status: RunStatus, stage: Stage) -> Problem | None:
    pods = case.live_pods(*_COMPONENTS[stage.kind])
    field = _template_field(case, stage)
    found = (pod_facts.problem(pod, field) for pod in pods)
    problem = next((problem for problem in found if problem is not None), None)
    if problem is None or stage.kind != "Training" or problem.reason != conditions.UNSCHEDULABLE:
        return problem
    return replace(problem, message=problem.message + _excluded_words(status))


def _excluded_words(status: RunStatus) -> str:
    if not status.excluded_nodes:
        return ""
    excluded = ", ".join(f"{entry.name} until {entry.until}" for entry in status.excluded_nodes)
    return (
        f" Excluded after faults: {excluded}; spec.recovery.excludeNodeAfter 0 takes them back,"
        f" the label {REPAIRED_LABEL} one that was mended."
    )


def _template_field(case: Case, stage: Stage) -> str:
    """Where the spec overrides the pods of a stage."""
    if stage.kind == "PostTraining":
        names = [entry.name for entry in case.spec.post_training]
        return f"spec.postTraining[{names.index(stage.name or '')}].template"
    part = {"Data": "data", "Training": "nodes", "Export": "export", "Serving": "serving"}
    return f"spec.{part[stage.kind]}.template"


# Serving


def is_served(case: Case, status: RunStatus) -> bool:
    """The Deployment that the server has seen serves with all replicas of its newest form."""
    deployment = case.observed.get("Deployment", serving_manifests.name(case.run))
    wanted = stages.served(case.spec, status)
    if deployment is None or case.spec.serving is None or wanted is None:
        return False
    if serving_manifests.served_path(deployment) != wanted.path:
        return False
    seen = deployment.get("status", {})
    is_seen = seen.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    replicas = case.spec.serving.replicas
    ready = min(seen.get("readyReplicas", 0), seen.get("updatedReplicas", 0))
    return bool(is_seen and ready >= replicas)


def _url(status: RunStatus) -> str:
    return (status.serving.url if status.serving else None) or ""


def _last_path(case: Case, status: RunStatus) -> str:
    """Of the run's last artifact; a script's training exports nothing."""
    made = stages.exported(case.spec, status) or status.artifacts
    return made[-1].path


# Conditions of the stages


def _with_stage_conditions(case: Case, status: RunStatus, state: str, message: str) -> RunStatus:
    wanted = stages.stages(case.spec)
    for kind, name in STAGE_CONDITIONS.items():
        own = [stage for stage in wanted if stage.kind == kind]
        if not own:
            status = conditions.without_condition(status, name)
            continue
        truth, reason, text = _stage_condition(case, status, own, state, message)
        status = conditions.with_condition(
            status, name, truth, reason, text, generation=case.run.generation, now=case.now
        )
    return status


def _stage_condition(
    case: Case, status: RunStatus, own: list[Stage], state: str, message: str
) -> tuple[conditions.Truth, str, str]:
    made = [found for stage in own if (found := stages.artifact(status, stage)) is not None]
    if len(made) == len(own):
        return "True", "Finished", made[-1].path
    if own[0].kind == "Serving" and is_served(case, status):
        return "True", "Ready", _url(status)
    if stages.current(case.spec, status) not in own:
        return "Unknown", "Waiting", "for the stages before it"
    truth: conditions.Truth = "False" if state in conditions.STOPPED else "Unknown"
    return truth, state, message
