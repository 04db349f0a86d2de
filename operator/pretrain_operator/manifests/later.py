"""Jobs of the stages that run in one pod and end: Data, Export, PostTraining."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_llm.contract import environment, exit_codes
from pretrain_llm.contract.config import AnyConfig

from .. import names
from ..api.spec import Nodes, PodTemplate
from ..observed import Run
from ..settings import Component, Settings
from . import templates
from .inputs import config_map_name
from .jobs import DISRUPTED, final_exit
from .metadata import Object, child, labels, stamped
from .pods import Container, pod_metadata, pod_spec, unreachable_tolerations

_TRIES = 3
_FINAL = (*exit_codes.FINAL, exit_codes.OUT_OF_MEMORY)
_GRACE_SECONDS = 30  # stages are idempotent and start again where their folder ends


@dataclass(frozen=True)
class StageJob:
    """What one stage's Job is made from."""

    name: str
    component: Component
    module: str
    own: PodTemplate
    field: str  # of the spec that has `own`
    config: AnyConfig  # as the stage reads it
    inputs: str  # digest of what the run says of it
    stage_name: str | None = None
    source: str | None = None  # folder of the artifact that it starts from
    uses_device: bool = False


def stage_job(run: Run, stage: StageJob, settings: Settings, *, suspend: bool) -> Object:
    assert run.spec is not None
    template = templates.merged(settings, stage.component, stage.own, stage.field)
    container = Container(
        command=["python", "-m", stage.module],
        template=template,
        env=_env(stage),
        config_map=config_map_name(run, stage.config),
        claim=run.spec.storage.claim_name,
        shared_memory=stage.uses_device,
        devices=_device(run.spec.nodes) if stage.uses_device else {},
    )
    pod = {
        "metadata": pod_metadata(labels(run, stage.component), template),
        "spec": pod_spec(
            container,
            restartPolicy="Never",
            terminationGracePeriodSeconds=_GRACE_SECONDS,
            tolerations=unreachable_tolerations(settings.unreachable_seconds),
        ),
    }
    job = child(
        run,
        "batch/v1",
        "Job",
        stage.name,
        stage.component,
        spec={
            "backoffLimit": _TRIES,
            "podFailurePolicy": {"rules": [final_exit(_FINAL), DISRUPTED]},
            "podReplacementPolicy": "Failed",
            "suspend": suspend,
            "template": pod,
        },
    )
    return stamped(job, **{names.INPUTS_ANNOTATION: stage.inputs})


def _device(nodes: Nodes) -> dict[str, str]:
    return {nodes.device_resource: "1"} if nodes.device_resource else {}


def _env(stage: StageJob) -> list[Object]:
    values = {environment.STAGE_NAME: stage.stage_name, environment.INPUT: stage.source}
    return [{"name": name, "value": value} for name, value in values.items() if value]
