"""The parts that all pods of a run share: restricted, without API access, one volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pretrain_llm.contract import environment

from ..api.spec import PodTemplate
from .metadata import Object

MAIN_CONTAINER = "main"
_USER = 65532  # "nonroot", as in common base images
_CONFIG_FOLDER = environment.CONFIG_PATH.rpartition("/")[0]

POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": _USER,
    "runAsGroup": _USER,
    "fsGroup": _USER,
    "fsGroupChangePolicy": "OnRootMismatch",  # else a large volume is walked at every start
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
_BASE_ENV = (
    {"name": "HOME", "value": environment.SCRATCH_PATH},
    {"name": "USER", "value": "pretrain"},  # torch asks getpass, and the uid has no entry
    {"name": "PYTHONUNBUFFERED", "value": "1"},
)


@dataclass(frozen=True)
class Container:
    """What differs from pod to pod."""

    command: Sequence[str]
    template: PodTemplate
    env: Sequence[Object] = ()
    config_map: str | None = None
    claim: str | None = None
    claim_read_only: bool = False
    shared_memory: bool = False  # collectives and data loaders need more than 64 MiB
    memory: Object | None = None  # the emptyDir of checkpoints in memory
    devices: dict[str, str] = field(default_factory=dict)
    ports: Sequence[Object] = ()
    probes: Object = field(default_factory=dict)


def pod_spec(container: Container, init: Iterable[Object] = (), **parts: Any) -> Object:
    template = container.template
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "containers": [main_container(container)],
        "volumes": _volumes(container),
        **parts,
    }
    spec["tolerations"] = [*parts.get("tolerations", ()), *map(dict, template.tolerations)]
    if init := list(init):
        spec["initContainers"] = init
    if template.node_selector:
        spec["nodeSelector"] = dict(template.node_selector)
    if template.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in template.image_pull_secrets]
    return {key: value for key, value in spec.items() if value != []}


def main_container(container: Container, name: str = MAIN_CONTAINER) -> Object:
    """Raises nothing: `templates.merged` has seen to it that there is an image."""
    template = container.template
    result: Object = {
        "name": name,
        "image": template.image,
        "command": list(container.command),
        "env": _env(container),
        "volumeMounts": _mounts(container),
        "securityContext": CONTAINER_SECURITY,
        # A program that dies without a message leaves the end of its log instead.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **container.probes,
    }
    limits = {**container.devices, **template.resources.limits}
    resources = {"requests": dict(template.resources.requests), "limits": limits}
    if filled := {key: value for key, value in resources.items() if value}:
        result["resources"] = filled
    if container.ports:
        result["ports"] = list(container.ports)
    return result


def pod_metadata(labels: dict[str, str], template: PodTemplate) -> Object:
    metadata: Object = {"labels": labels}
    if template.annotations:
        metadata["annotations"] = dict(template.annotations)
    return metadata


def unreachable_tolerations(seconds: int) -> list[Object]:
    """A pod on a node that does not answer is evicted after `seconds`, not after 5 minutes."""
    return [
        {
            "key": f"node.kubernetes.io/{problem}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": seconds,
        }
        for problem in ("not-ready", "unreachable")
    ]


def _env(container: Container) -> list[Object]:
    """The run's own entries win over the operator's."""
    own = [entry.model_dump(by_alias=True, exclude_none=True) for entry in container.template.env]
    taken = {entry["name"] for entry in own}
    given = (*_BASE_ENV, *container.env)
    return [*(dict(entry) for entry in given if entry["name"] not in taken), *own]


def _volumes(container: Container) -> list[Object]:
    volumes: list[Object] = [{"name": "scratch", "emptyDir": {}}]
    if container.config_map:
        volumes.append({"name": "config", "configMap": {"name": container.config_map}})
    if container.claim:
        volumes.append({"name": "storage", "persistentVolumeClaim": {"claimName": container.claim}})
    if container.shared_memory:
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
    if container.memory is not None:
        volumes.append({"name": "memory", "emptyDir": container.memory})
    return [*volumes, *map(dict, container.template.volumes)]


def _mounts(container: Container) -> list[Object]:
    mounts: list[Object] = [{"name": "scratch", "mountPath": environment.SCRATCH_PATH}]
    if container.config_map:
        mounts.append({"name": "config", "mountPath": _CONFIG_FOLDER, "readOnly": True})
    if container.claim:
        storage: Object = {"name": "storage", "mountPath": environment.VOLUME_PATH}
        mounts.append(storage | ({"readOnly": True} if container.claim_read_only else {}))
    if container.shared_memory:
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108  in a pod
    if container.memory is not None:
        mounts.append({"name": "memory", "mountPath": environment.MEMORY_PATH})
    return [*mounts, *map(dict, container.template.volume_mounts)]
