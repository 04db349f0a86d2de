"""vLLM behind an OpenAI API: Deployment and Service; rolled forward when the new one answers."""

from __future__ import annotations

from pretrain_llm.contract import environment

from .. import names
from ..api.spec import AnySpec, PodTemplate, Resources, Serving
from ..curriculum import last_length
from ..observed import KubernetesObject, Run
from ..settings import Settings
from . import templates
from .metadata import Object, annotation, child, labels, stamped
from .pods import (
    CONTAINER_SECURITY,
    Container,
    main_container,
    pod_metadata,
    pod_spec,
    unreachable_tolerations,
)

COMPONENT = "serving"
_HEALTH = {"httpGet": {"path": "/health", "port": "http"}}
_PATH_ANNOTATION = "pretrain.dev/artifact"
_START_SECONDS = 1800  # large models are read from the volume, compiled and captured


def name(run: Run) -> str:
    return names.serving(run.name)


def served_path(deployment: KubernetesObject) -> str | None:
    """Which artifact an observed Deployment serves."""
    return annotation(deployment, _PATH_ANNOTATION)


def serving_url(run: Run, settings: Settings) -> str:
    host = names.service_host(names.serving(run.name), run.namespace, settings.cluster_domain)
    return f"http://{host}:{environment.SERVING_PORT}/v1"


def service(run: Run) -> Object:
    spec = {
        "selector": labels(run, COMPONENT),
        "ports": [{"name": "http", "port": environment.SERVING_PORT, "targetPort": "http"}],
    }
    return stamped(child(run, "v1", "Service", names.serving(run.name), COMPONENT, spec=spec))


def deployment(run: Run, settings: Settings, path: str) -> Object:
    """Serves the artifact at `path`; a new one is started beside it and must answer first."""
    assert run.spec is not None
    assert run.spec.serving is not None
    serving = run.spec.serving
    field = "spec.serving.template"
    template = templates.merged(settings, "serving", serving.template, field)
    container = _server(run, settings, serving, template, path)
    pod = {
        "metadata": pod_metadata(labels(run, COMPONENT), template),
        "spec": pod_spec(
            container,
            init=[_check(container, path)],
            terminationGracePeriodSeconds=30,
            tolerations=unreachable_tolerations(settings.unreachable_seconds),
        ),
    }
    spec = {
        "replicas": 0 if run.spec.suspend else serving.replicas,
        "revisionHistoryLimit": 1,
        "progressDeadlineSeconds": _START_SECONDS + 600,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "selector": {"matchLabels": labels(run, COMPONENT)},
        "template": pod,
    }
    desired = child(run, "apps/v1", "Deployment", name(run), COMPONENT, spec=spec)
    return stamped(desired, **{_PATH_ANNOTATION: path})


def _server(
    run: Run, settings: Settings, serving: Serving, template: PodTemplate, path: str
) -> Container:
    assert run.spec is not None
    return Container(
        command=_command(run, settings, serving, path),
        template=template,
        claim=run.spec.storage.claim_name,
        claim_read_only=True,
        shared_memory=True,
        devices=_devices(run.spec, serving),
        ports=[{"name": "http", "containerPort": environment.SERVING_PORT}],
        probes={
            "startupProbe": {
                **_HEALTH,
                "periodSeconds": 2,
                "failureThreshold": _START_SECONDS // 2,
            },
            "readinessProbe": {**_HEALTH, "periodSeconds": 5, "failureThreshold": 3},
            "livenessProbe": {**_HEALTH, "periodSeconds": 10, "failureThreshold": 6},
        },
    )


def _command(run: Run, settings: Settings, serving: Serving, path: str) -> list[str]:
    assert run.spec is not None
    assert run.spec.training is not None  # a script is not served
    length = serving.max_model_length or last_length(run.spec.training)
    options = {
        "model": path,
        "served-model-name": run.name,
        "host": "0.0.0.0",  # noqa: S104  a pod serves its network
        "port": str(environment.SERVING_PORT),
        "max-model-len": str(length),
        "tensor-parallel-size": str(max(1, serving.devices)),
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    module = "vllm.entrypoints.openai.api_server"
    return ["python", "-m", module, *flags, *settings.serving_arguments, *serving.arguments]


def _check(server: Container, path: str) -> Object:
    """Refuses a folder whose files or tokenizer are not what its manifest says."""
    container = Container(
        command=["python", "-m", "pretrain_llm.serve_check", path],
        template=server.template.model_copy(update={"resources": Resources()}),
        claim=server.claim,
        claim_read_only=True,
    )
    return {**main_container(container, name="check"), "securityContext": CONTAINER_SECURITY}


def _devices(spec: AnySpec, serving: Serving) -> dict[str, str]:
    resource = spec.nodes.device_resource
    return {resource: str(serving.devices)} if resource and serving.devices else {}
