"""The faults that `pretrain faults inject` can make, and what each is expected to come to. Pure.

One ordered table: a new kind is a new row here and in docs/failure-handling.md. Level and charge
are those of the class in `faults.TABLE`. What is done is said in small actions, which the CLI
carries out one after another, in the user's own name.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pretrain_llm.contract.status import StatusDocument

from . import faults, names

FIELD = "spec.recovery.faultInjection"
NO_IMAGE = "registry.invalid/no-such-image:1"
_LOW_DISK = "The node was low on resource: ephemeral-storage. (injected)"


class InjectionError(ValueError):
    """This cannot be injected; the text says why, and what to do."""


# Actions


@dataclass(frozen=True)
class InPod:
    """`python -m pretrain_llm.faults KIND` in the training pod."""

    kind: str


@dataclass(frozen=True)
class DeletePod:
    grace_seconds: int | None = None  # None: the pod's own


@dataclass(frozen=True)
class AwaitEnd:
    """Until the pod's containers have ended."""


@dataclass(frozen=True)
class DeletePods:
    """All that a label selector finds, at once."""

    selector: str  # {run} is filled in
    is_of_operator: bool = False  # in the operator's namespace, not the run's


@dataclass(frozen=True)
class EvictPod:
    """Through the API, as `kubectl drain` does."""


@dataclass(frozen=True)
class MarkPod:
    """The pod's DisruptionTarget condition, as whoever takes a pod away sets it."""

    reason: str
    message: str


@dataclass(frozen=True)
class Cordon:
    """The node takes no new pods."""


@dataclass(frozen=True)
class NodeCondition:
    """As a health daemon writes it."""

    type: str
    message: str


@dataclass(frozen=True)
class EditSpec:
    patch: dict[str, object]  # a merge patch


@dataclass(frozen=True)
class Command:
    """What no API can do: the user's --command, once for each node of the target."""

    action: str
    target: str = "{node}"


Action = (
    InPod
    | DeletePod
    | AwaitEnd
    | DeletePods
    | EvictPod
    | MarkPod
    | Cordon
    | NodeCondition
    | EditSpec
    | Command
)


@dataclass(frozen=True)
class Kind:
    name: str
    words: str  # what is done
    actions: tuple[Action, ...]
    fault_class: str | None  # expected; None: no fault of the run
    outcome: str = ""  # further, in words
    undo: str = ""  # what is left to the user; {run}, {namespace}, {node} are filled in
    num_nodes: int = 1

    @property
    def row(self) -> faults.Row | None:
        found = (row for row in faults.TABLE if row.name == self.fault_class)
        return next(found, None)

    @property
    def needs_command(self) -> bool:
        return any(isinstance(action, Command) for action in self.actions)

    @property
    def needs_target(self) -> bool:
        """Whether it strikes pods or nodes of the round."""
        apart = (DeletePods, EditSpec)
        return any(
            not isinstance(action, apart)
            and not (isinstance(action, Command) and "{node}" not in action.target)
            for action in self.actions
        )


def _in_pod(name: str, words: str, fault_class: str | None, outcome: str = "") -> Kind:
    return Kind(name, words, (InPod(name),), fault_class, outcome)


def _sick_node(name: str, condition: str, words: str) -> Kind:
    return Kind(
        name,
        f"the node's condition {condition}, as a health daemon sets it, then SIGABRT to a worker",
        (NodeCondition(condition, words), InPod("worker-sigabrt")),
        "NodeUnhealthy",
        undo="kubectl patch node {node} --subresource=status -p "
        f'\'{{"status":{{"conditions":[{{"type":"{condition}","status":"False"}}]}}}}\'',
    )


_UNCORDON = "kubectl uncordon {node}"
_QUARANTINED = "the checkpoint is quarantined, the one before it is loaded"

TABLE = (
    _in_pod("worker-sigkill", "SIGKILL to a worker", "WorkerKilled"),
    _in_pod("worker-sigsegv", "SIGSEGV to a worker", "WorkerCrashed"),
    _in_pod("worker-sigabrt", "SIGABRT to a worker", "WorkerCrashed"),
    _in_pod("worker-sigterm", "SIGTERM to a worker", "AskedToLeave", "no step is lost"),
    _in_pod("worker-sigstop", "SIGSTOP to a worker", "Hang"),
    _in_pod("worker-exit", "a worker ends with exit code 1", "WorkerError"),
    _in_pod("worker-exception", "a worker raises a Python exception", "WorkerError"),
    _in_pod("collective-deadlock", "a worker never comes to its next collective", "Hang"),
    _in_pod("hold-gil", "C code in a worker holds the GIL for ever", "Hang"),
    _in_pod("cuda-error", "a worker raises a CUDA error", "DeviceError"),
    _in_pod("xid-on-stderr", "XID 79 on a worker's stderr, then SIGABRT", "DeviceBroken"),
    _in_pod("nccl-watchdog", "NCCL's watchdog on stderr, then SIGABRT", "CollectiveTimeout"),
    _in_pod("nan-loss", "a worker's weights become NaN", "NonFinite"),
    _in_pod(
        "loss-spike",
        "a worker's weights grow fourfold",
        None,
        "`LossSpike` where `spec.recovery.loss.spikeFactor` is set",
    ),
    _in_pod("host-oom", "a worker takes memory until the kernel kills it", "HostMemory"),
    _in_pod("device-oom", "a worker raises torch.OutOfMemoryError", "DeviceMemory"),
    Kind(
        "device-oom-at-start",
        "SIGKILL to a worker, torch.OutOfMemoryError before the first step of its next round",
        (InPod("device-oom-at-start"),),
        "DeviceMemoryAtStart",
        "after a `WorkerKilled`",
    ),
    _in_pod(
        "slow-rank",
        "a worker's blocks take --seconds longer in each of --steps steps",
        None,
        "named in `status.training.stragglers`",
    ),
    _in_pod("agent-killed", "SIGKILL to the agent, with which its container ends", "AgentLost"),
    _in_pod("container-killed", "SIGKILL to the agent and its workers", "AgentLost"),
    Kind(
        "pod-deleted",
        "`kubectl delete pod`: SIGTERM, with grace",
        (DeletePod(),),
        "AskedToLeave",
        "no step is lost",
    ),
    Kind(
        "pod-force-deleted",
        "`kubectl delete pod --force`, its processes killed with it",
        (InPod("container-killed"), AwaitEnd(), DeletePod(0)),
        "PodLost",
    ),
    Kind(
        "pod-evicted",
        "as the kubelet evicts a pod of a node with a full disk",
        (MarkPod("TerminationByKubelet", _LOW_DISK), InPod("container-killed")),
        "DiskPressure",
    ),
    Kind(
        "pod-preempted",
        "as the scheduler preempts a pod: condition, then deletion with grace",
        (MarkPod("PreemptionByScheduler", "preempted (injected)"), DeletePod()),
        "Preempted",
    ),
    Kind(
        "node-drained",
        "`kubectl drain`: cordon, then eviction through the API",
        (Cordon(), EvictPod()),
        "AskedToLeave",
        "no step is lost",
        undo=_UNCORDON,
    ),
    Kind(
        "node-cordoned",
        "cordon, as a health daemon does, and the pod's processes die",
        (Cordon(), InPod("container-killed")),
        "NodeCordoned",
        undo=_UNCORDON,
    ),
    _sick_node("node-gpu-lost", "SysLogsGPUFallenOff", "GPU 3 has fallen off the bus (injected)"),
    _sick_node("node-gpu-ecc", "GpuMemWatch", "uncorrectable ECC error (injected)"),
    _sick_node("node-nvlink", "GpuNvlinkWatch", "NVLink 4 is down (injected)"),
    Kind(
        "node-power-off",
        "the node's power is cut",
        (Command("off"),),
        "AgentLost",
        "`NodeLost` where no spare steps before Kubernetes notices",
    ),
    Kind("node-reboot", "the node's power is cut for a moment", (Command("reboot"),), "AgentLost"),
    Kind(
        "node-partitioned",
        "the node's pods reach no other node; the API server reaches it",
        (Command("partition"),),
        "AgentLost",
    ),
    Kind(
        "node-silent",
        "the node's kubelet does not reach the API server; its pods go on",
        (Command("silence"),),
        None,
        "workers step on, the pod stays",
    ),
    Kind(
        "two-nodes-power-off",
        "the power of two nodes at once",
        (Command("off"),),
        "NodeLost",
        num_nodes=2,
    ),
    Kind(
        "coordinator-killed",
        "the coordinator's pod is deleted at once",
        (DeletePods(f"{names.COMPONENT_LABEL}=coordinator,{names.RUN_LABEL}={{run}}"),),
        None,
        "workers step on",
    ),
    Kind(
        "operator-killed",
        "the operator's pods are deleted at once",
        (DeletePods("app.kubernetes.io/name=pretrain-operator", is_of_operator=True),),
        None,
        "workers step on",
    ),
    Kind(
        "api-server-down",
        "the API server is stopped",
        (Command("stop", "kube-apiserver"),),
        None,
        "workers step on",
    ),
    _in_pod(
        "checkpoint-truncated",
        "the newest checkpoint's largest file is cut in half, then SIGKILL to a worker",
        "WorkerKilled",
        _QUARANTINED,
    ),
    _in_pod(
        "checkpoint-bit-flipped",
        "one bit of the newest checkpoint is flipped, then SIGKILL to a worker",
        "WorkerKilled",
        _QUARANTINED,
    ),
    _in_pod(
        "checkpoint-manifest-missing",
        "the newest checkpoint's manifest is removed, then SIGKILL to a worker",
        "WorkerKilled",
        "the checkpoint is removed, the one before it is loaded",
    ),
    _in_pod("storage-full", "a worker's writes fail with ENOSPC", "StorageFull"),
    _in_pod(
        "storage-stalled",
        "a worker's writes never end",
        "Hang",
        "after `spec.recovery.stall.quietSeconds`",
    ),
    Kind(
        "run-suspended",
        "`spec.suspend: true`",
        (EditSpec({"suspend": True}),),
        "AskedToLeave",
        "`Suspended`; no step is lost",
        undo="kubectl patch pretrainrun {run} -n {namespace} --type=merge "
        '-p \'{"spec":{"suspend":false}}\'',
    ),
    Kind(
        "wrong-config",
        "an edit: `spec.nodes.template.image` is one that does not exist",
        (EditSpec({"nodes": {"template": {"image": NO_IMAGE}}}),),
        None,
        "a new attempt, `ImagePullFailed`",
        undo="set spec.nodes.template.image of {run} back to what it was",
    ),
)


def filled(text: str, **values: str) -> str:
    """With {run}, {namespace}, {node} filled in; other braces stay."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def kind(name: str) -> Kind:
    """Raises InjectionError."""
    for row in TABLE:
        if row.name == name:
            return row
    known = [row.name for row in TABLE]
    near = difflib.get_close_matches(name, known, 1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise InjectionError(f"unknown kind {name!r}{guess} Known are {', '.join(known)}")


# Targets


@dataclass(frozen=True)
class Target:
    """One training pod of the round, and the worker in it that is meant."""

    pod: str
    node: str
    rank: int


def targets(
    document: StatusDocument,
    devices_per_node: int,
    *,
    count: int = 1,
    rank: int | None = None,
    pod: str | None = None,
    node: str | None = None,
) -> tuple[Target, ...]:
    """Those wanted, else the last of the round. Raises InjectionError where they are not in it."""
    members = _members(document, devices_per_node)
    wanted = [
        member
        for member in members
        if (rank is None or member.rank <= rank < member.rank + devices_per_node)
        and (pod is None or member.pod == pod)
        and (node is None or member.node == node)
    ]
    if len(wanted) < count:
        where = ", ".join(f"{m.pod} (rank {m.rank}, {m.node})" for m in members) or "nobody"
        asked = _asked(rank=rank, pod=pod, node=node)
        raise InjectionError(
            f"{count} of the round {'are' if count > 1 else 'is'} needed{asked}, but it has {where}"
        )
    chosen = wanted[-count:]
    return tuple(Target(m.pod, m.node, m.rank if rank is None else rank) for m in chosen)


def _members(document: StatusDocument, devices_per_node: int) -> Sequence[Target]:
    """By rank; each with the first rank of its workers."""
    ranked = [
        Target(agent.name, agent.node, agent.rank * devices_per_node)
        for agent in document.agents
        if agent.rank is not None
    ]
    return sorted(ranked, key=lambda member: member.rank)


def _asked(**wishes: object) -> str:
    named = [f"--{name} {value}" for name, value in wishes.items() if value is not None]
    return f" with {' '.join(named)}" if named else ""
