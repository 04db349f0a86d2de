"""Objects of a training attempt: coordinator, Indexed Job, and the headless Services of both."""

from __future__ import annotations

from collections.abc import Sequence

from pretrain_llm.contract import environment, exit_codes
from pretrain_llm.contract.config import AnyConfig

from .. import names
from ..api.spec import AnySpec, MemoryCheckpoint, Nodes, PodTemplate, ScriptSpec
from ..observed import Run
from ..settings import Settings
from . import templates
from .inputs import config_map_name
from .jobs import final_exit
from .metadata import Object, child, digest, labels, stamped
from .pods import Container, pod_metadata, pod_spec, unreachable_tolerations

COMPONENT = "training"
COORDINATOR = "coordinator"
_UNLIMITED = 2**31 - 1  # rounds and budgets are counted by the operator, not by the Job
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
# The operator is sooner where it may read nodes, and looks whether they are silent (`lost_pods`).
_UNREACHABLE_SECONDS = 300  # Kubernetes' own default
_COORDINATOR_START_SECONDS = 300  # it imports torch, on a node that may do much else
_HTTP_PROBE = {"httpGet": {"path": "/healthz", "port": "http"}, "timeoutSeconds": 5}


def coordinator_service(run: Run) -> Object:
    ports = [
        {"name": "http", "port": environment.COORDINATOR_HTTP_PORT},
        {"name": "store", "port": environment.STORE_PORT},
    ]
    return _headless_service(run, names.coordinator(run.name), COORDINATOR, ports)


def training_service(run: Run) -> Object:
    """Gives every training pod a name; no port is needed for that."""
    return _headless_service(run, names.training_service(run.name), COMPONENT, [])


def coordinator(run: Run, config: AnyConfig, settings: Settings, attempt: int) -> Object:
    assert run.spec is not None
    template = templates.coordinator(settings, _template(run.spec, settings))
    container = Container(
        command=["python", "-m", "pretrain_llm.coordinator", *_recovery(run.spec)],
        template=template,
        env=[_variable(environment.ATTEMPT, str(attempt))],
        config_map=config_map_name(run, config),
        ports=[
            {"name": "http", "containerPort": environment.COORDINATOR_HTTP_PORT},
            {"name": "store", "containerPort": environment.STORE_PORT},
        ],
        probes={
            "startupProbe": {
                **_HTTP_PROBE,
                "periodSeconds": 2,
                "failureThreshold": _COORDINATOR_START_SECONDS // 2,
            },
            "readinessProbe": {**_HTTP_PROBE, "periodSeconds": 5},
            "livenessProbe": {**_HTTP_PROBE, "periodSeconds": 10, "failureThreshold": 6},
        },
    )
    selector = labels(run, COORDINATOR)
    pod = {
        "metadata": pod_metadata(_attempt_labels(run, COORDINATOR, attempt), template),
        "spec": pod_spec(
            container,
            terminationGracePeriodSeconds=5,
            tolerations=unreachable_tolerations(_UNREACHABLE_SECONDS),
        ),
    }
    return stamped(
        child(
            run,
            "apps/v1",
            "Deployment",
            names.coordinator(run.name),
            COORDINATOR,
            extra_labels={names.ATTEMPT_LABEL: str(attempt)},
            # Two coordinators would each name rounds.
            spec={
                "replicas": 1,
                "revisionHistoryLimit": 0,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": selector},
                "template": pod,
            },
        )
    )


def training_job(
    run: Run,
    config: AnyConfig,
    settings: Settings,
    *,
    attempt: int,
    inputs: str,
    suspend: bool,
    avoided: Sequence[str] = (),
) -> Object:
    """One pod a node slot, each on a node of its own, spares included. `avoided`: names of nodes,
    looked at where their labels say nothing; of a Job that is there, they change nothing.
    """
    assert run.spec is not None
    nodes = run.spec.nodes
    slots = nodes.count + nodes.spares
    job = child(
        run,
        "batch/v1",
        "Job",
        names.training_job(run.name, attempt),
        COMPONENT,
        extra_labels={names.ATTEMPT_LABEL: str(attempt)},
        spec={
            "completionMode": "Indexed",
            "completions": slots,
            "parallelism": slots,
            "backoffLimit": _UNLIMITED,
            # Disrupted pods are counted as any other: the count tells that the Job backs off.
            "podFailurePolicy": {"rules": [final_exit(exit_codes.FINAL)]},
            # An agent ends with 0 only once the run has: slots that found no node are not needed.
            "successPolicy": {"rules": [{"succeededCount": nodes.min or nodes.count}]},
            "podReplacementPolicy": "Failed",
            "suspend": suspend,
            "template": _agent_pod(run, run.spec, config, settings, attempt, avoided),
        },
    )
    return stamped(job, **{names.INPUTS_ANNOTATION: inputs})


def _agent_pod(
    run: Run,
    spec: AnySpec,
    config: AnyConfig,
    settings: Settings,
    attempt: int,
    avoided: Sequence[str],
) -> Object:
    template = _template(spec, settings)
    container = Container(
        command=["python", "-m", "pretrain_llm.agent"],
        template=template,
        env=_agent_env(run, settings, attempt),
        config_map=config_map_name(run, config),
        claim=spec.storage.claim_name,
        shared_memory=True,
        memory=_memory(spec.checkpoint.memory),
        devices=_devices(spec.nodes),
    )
    return {
        "metadata": pod_metadata(_attempt_labels(run, COMPONENT, attempt), template),
        "spec": pod_spec(
            container,
            restartPolicy="Never",
            subdomain=names.training_service(run.name),
            terminationGracePeriodSeconds=settings.termination_grace_seconds,
            tolerations=unreachable_tolerations(_UNREACHABLE_SECONDS),
            affinity=_affinity(run, settings, avoided),
        ),
    }


def _recovery(spec: AnySpec) -> list[str]:
    recovery = spec.recovery
    stall, loss, stragglers = recovery.stall, recovery.loss, recovery.stragglers
    elastic = [f"--shrink-after-seconds={recovery.shrink_after_seconds}"]
    return [
        *(elastic if spec.nodes.min else []),
        f"--stall-factor={stall.factor:g}",
        f"--stall-floor-seconds={stall.floor_seconds}",
        f"--stall-quiet-seconds={stall.quiet_seconds}",
        f"--spike-factor={loss.spike_factor or 0:g}",
        f"--spike-window-steps={loss.window_steps}",
        f"--spike-steps={loss.spike_steps}",
        f"--skip-steps={loss.skip_steps}",
        # Nobody but a script could skip its batches.
        f"--max-rollbacks={0 if isinstance(spec, ScriptSpec) else loss.max_rollbacks}",
        f"--straggler-z-score={stragglers.z_score:g}",
        f"--straggler-window-steps={stragglers.window_steps}",
    ]


def _template(spec: AnySpec, settings: Settings) -> PodTemplate:
    return templates.merged(settings, "training", spec.nodes.template, "spec.nodes.template")


def _attempt_labels(run: Run, component: str, attempt: int) -> dict[str, str]:
    return labels(run, component) | {names.ATTEMPT_LABEL: str(attempt)}


def _devices(nodes: Nodes) -> dict[str, str]:
    return {nodes.device_resource: str(nodes.devices_per_node)} if nodes.device_resource else {}


def _memory(memory: MemoryCheckpoint | None) -> Object | None:
    """An emptyDir: it outlives the container, and not the pod."""
    if memory is None:
        return None
    limit = {"sizeLimit": memory.size_limit} if memory.size_limit else {}
    return {"medium": "Memory", **limit}


def _memory_token(run: Run, attempt: int) -> str:
    """What agents show each other. The uid is random, and only who may read the run knows it."""
    return digest({"uid": run.uid, "attempt": attempt})


def _affinity(run: Run, settings: Settings, avoided: Sequence[str]) -> Object:
    """One slot a node, and none on an excluded one."""
    selector = {"matchLabels": labels(run, COMPONENT)}
    slot = {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}
    term = _excluding_term(run, settings, avoided)
    affinity: Object = {"podAntiAffinity": {_REQUIRED: [slot]}}
    if term:
        affinity["nodeAffinity"] = {_REQUIRED: {"nodeSelectorTerms": [term]}}
    return affinity


def _excluding_term(run: Run, settings: Settings, avoided: Sequence[str]) -> Object:
    if settings.node_exclusion.marks != "None":
        own = (names.EXCLUDED_LABEL, names.excluded_from_label(run.uid))
        return {"matchExpressions": [{"key": key, "operator": "DoesNotExist"} for key in own]}
    # The API server takes one name a requirement; all must hold.
    by_name = [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in avoided]
    return {"matchFields": by_name} if by_name else {}


def _agent_env(run: Run, settings: Settings, attempt: int) -> list[Object]:
    assert run.spec is not None
    host = names.service_host(names.coordinator(run.name), run.namespace, settings.cluster_domain)
    values = {
        environment.ATTEMPT: str(attempt),
        environment.COORDINATOR: f"{host}:{environment.COORDINATOR_HTTP_PORT}",
        environment.STORE: f"{host}:{environment.STORE_PORT}",
        environment.GRACE_SECONDS: str(settings.termination_grace_seconds),
    }
    if run.spec.recovery.fault_injection:
        values[environment.FAULT_INJECTION] = "true"
    fields = {
        environment.POD_NAME: "metadata.name",
        environment.POD_UID: "metadata.uid",
        environment.NODE_NAME: "spec.nodeName",
    }
    if run.spec.checkpoint.memory is not None:
        values[environment.MEMORY_TOKEN] = _memory_token(run, attempt)
        fields[environment.POD_IP] = "status.podIP"
    return [
        *(_variable(name, value) for name, value in values.items()),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()
        ),
        *_wandb_env(run.spec),
    ]


def _wandb_env(spec: AnySpec) -> list[Object]:
    wandb = spec.training.wandb if spec.training else None
    if wandb is None or wandb.api_key_secret is None:
        return []
    reference = {"name": wandb.api_key_secret.name, "key": wandb.api_key_secret.key}
    return [{"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": reference}}]


def _variable(name: str, value: str) -> Object:
    return {"name": name, "value": value}


def _headless_service(run: Run, name: str, component: str, ports: list[Object]) -> Object:
    spec: Object = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,  # agents meet before anything is ready
        "selector": labels(run, component),
    }
    if ports:
        spec["ports"] = ports
    return stamped(child(run, "v1", "Service", name, component, spec=spec))
