"""What a fault is, what cures it and which budget pays: one ordered table, first match wins. Pure.

A new fault is a new row. `Evidence` holds what a row may ask about: facts, never guesses.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pretrain_llm.contract import exit_codes, symptoms
from pretrain_llm.contract.status import (
    AGENT_RESTARTED,
    LEASE_EXPIRED,
    LOSS_SPIKE,
    MORE_NODES,
    STALLED,
    STOP_REQUESTED,
    WORKER_EXIT,
)

from . import conditions
from .names import NODE_LOST

# Shrink is no row's: it is what became of a fault whose round no replacement could fill.
Level = Literal["WorkerRestart", "NodeReplacement", "Shrink", "Grow", "NewAttempt", "Stop"]
Budget = Literal["Infrastructure", "Application", "None"]
Blame = Literal["Never", "Repeated", "AtOnce"]  # when such faults exclude their node

POD_FAILED = "PodFailed"  # its agent never joined a round
JOB_FAILED = "JobFailed"  # the Job gave up
_PREEMPTED = "PreemptionByScheduler"
_DISK_PRESSURE = re.compile(r"ephemeral-storage|disk ?pressure|inodes", re.IGNORECASE)


@dataclass(frozen=True)
class Evidence:
    """What is known of one fault."""

    kind: str  # contract.status.EVIDENCE, POD_FAILED or JOB_FAILED
    exit_code: int | None = None  # None where a signal ended the process
    signal: int | None = None
    out_of_memory: bool = False  # the kernel's OOM killer
    message: str | None = None  # the program's own; of a stall, what its stacks say
    symptom: str | None = None  # contract.symptoms: what those words come to
    rollbacks_spent: bool = False  # of a loss that went wrong: it went wrong too often
    steps_since_start: int | None = None  # by the broken round; None: unknown
    disruption: str | None = None  # why the pod was taken away; None: it was not
    disruption_words: str | None = None  # of whoever took it
    pod_gone: bool = False
    node_ready: bool | None = None  # None: not known
    node_problem: str | None = None  # what a health daemon says of it
    node_cordoned: bool = False
    rank: int | None = None
    pod: str | None = None
    node: str | None = None
    memory_limit: str | None = None  # of the pod

    @property
    def at_start(self) -> bool:
        """No step, or only the first, since the round began: it would end the same way again."""
        return self.steps_since_start is not None and self.steps_since_start <= 1


@dataclass(frozen=True)
class Row:
    name: str
    matches: Callable[[Evidence], bool]
    level: Level
    budget: Budget
    words: str  # what happened
    state: str = conditions.STAGE_FAILED  # of the run, where the level is Stop
    remedy: str = ""
    blames_node: Blame = "Never"
    of_lost_agent: bool = False  # why one was lost: what tells it may pass, as a node comes back


@dataclass(frozen=True)
class Fault:
    """A row, and what it says of one piece of evidence."""

    row: Row
    evidence: Evidence

    @property
    def cause(self) -> str:
        """In words: what happened, where, and what the program said of it."""
        seen = self.evidence
        place = [
            f"rank {seen.rank}" if seen.rank is not None else "",
            f"pod {seen.pod}" if seen.pod else "",
            f"node {seen.node}" if seen.node else "",
            f"limit {seen.memory_limit}" if seen.out_of_memory and seen.memory_limit else "",
        ]
        where = ", ".join(filter(None, place))
        words = seen.message or seen.disruption_words
        return "".join(
            (
                _detailed(self.row.words, seen),
                f" ({where})" if where else "",
                f"; the node says {seen.node_problem}" if seen.node_problem else "",
                f": {words}" if words else "",
            )
        )


_LESS_MEMORY = (
    "lower spec.training.localBatchSize, set spec.training.activationCheckpointing to full, or"
    " spread the model over more devices with spec.nodes and spec.parallelism. The run goes on with"
    " the change."
)
_DEVICE_MEMORY_REMEDY = _LESS_MEMORY[0].upper() + _LESS_MEMORY[1:]
_HOST_MEMORY_REMEDY = f"Raise spec.nodes.template.resources.limits.memory, or {_LESS_MEMORY}"
_CRASHES = tuple(
    int(number)
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
)


def _is_device_memory(seen: Evidence) -> bool:
    return seen.exit_code == exit_codes.OUT_OF_MEMORY or seen.symptom == symptoms.DEVICE_MEMORY


def _is_loss(seen: Evidence) -> bool:
    return seen.kind == LOSS_SPIKE or seen.symptom == symptoms.NON_FINITE


def _has_lost_pod(seen: Evidence) -> bool:
    return seen.kind in (LEASE_EXPIRED, AGENT_RESTARTED, POD_FAILED)


def _shows(symptom: str) -> Callable[[Evidence], bool]:
    return lambda seen: seen.symptom == symptom


TABLE = (
    Row(
        "Preempted",
        lambda seen: seen.disruption == _PREEMPTED,
        "NodeReplacement",
        "None",
        "the scheduler preempted a pod",
    ),
    Row(
        "AskedToLeave",
        lambda seen: seen.kind == STOP_REQUESTED or seen.exit_code == exit_codes.SAVED,
        "NodeReplacement",
        "None",
        "an agent was asked to leave and saved",
    ),
    Row(
        "MoreNodes",
        lambda seen: seen.kind == MORE_NODES,
        "Grow",
        "None",
        "nodes were back: the workers saved, to go on with more",
    ),
    Row(
        "BadInput",
        lambda seen: seen.exit_code == exit_codes.BAD_INPUT,
        "Stop",
        "Application",
        "the spec or its data is wrong",
        conditions.BAD_INPUT,
        "Correct what the message names; a change of the spec starts the run again.",
    ),
    Row(
        "DoNotRestart",
        lambda seen: seen.exit_code == exit_codes.DO_NOT_RESTART,
        "Stop",
        "Application",
        "the program asked not to be restarted",
        conditions.DO_NOT_RESTART,
        "See its log; a change of the spec starts the run again.",
    ),
    Row(
        "DeviceMemoryAtStart",
        lambda seen: _is_device_memory(seen) and seen.at_start,
        "Stop",
        "Application",
        "the device ran out of memory in the first step",
        conditions.OUT_OF_MEMORY,
        _DEVICE_MEMORY_REMEDY,
    ),
    Row(
        "HostMemoryAtStart",
        lambda seen: seen.out_of_memory and seen.at_start,
        "Stop",
        "Application",
        "the pod's memory limit was exceeded in the first step",
        conditions.OUT_OF_MEMORY,
        _HOST_MEMORY_REMEDY,
    ),
    Row(
        "DeviceMemory",
        _is_device_memory,
        "WorkerRestart",
        "Application",
        "the device ran out of memory",
    ),
    Row(
        "HostMemory",
        lambda seen: seen.out_of_memory,
        "WorkerRestart",
        "Application",
        "the pod's memory limit was exceeded",
    ),
    Row(
        "LossDiverged",
        lambda seen: _is_loss(seen) and seen.rollbacks_spent,
        "Stop",
        "Application",
        "the loss went wrong once more than it may",
        conditions.LOSS_DIVERGED,
        "See the data of the skipped steps, and the loss before them. To go on, raise"
        " spec.recovery.loss.maxRollbacks, and skipSteps to skip more; or start a run under another"
        " name with a lower learningRate or gradientClipNorm. A script has to skip its batches"
        " itself.",
    ),
    Row(
        "NonFinite",
        _shows(symptoms.NON_FINITE),
        "WorkerRestart",
        "None",
        "the loss or the gradient was not finite",
    ),
    Row(
        "LossSpike",
        lambda seen: seen.kind == LOSS_SPIKE,
        "WorkerRestart",
        "None",
        "the loss rose and stayed high",
    ),
    Row(
        "StorageFull",
        _shows(symptoms.STORAGE_FULL),
        "Stop",
        "Application",
        "no space was left to write to",
        conditions.STORAGE_FULL,
        "Enlarge the volume that the message names, or lower checkpoint.keepLatest; a change of"
        " the spec starts the run again.",
    ),
    Row(
        "NodeLost",
        lambda seen: (
            _has_lost_pod(seen) and (seen.node_ready is False or seen.disruption == NODE_LOST)
        ),
        "NodeReplacement",
        "Infrastructure",
        "a node stopped answering",
        blames_node="Repeated",
        of_lost_agent=True,
    ),
    Row(
        "DiskPressure",
        lambda seen: (
            _has_lost_pod(seen)
            and seen.disruption is not None
            and _DISK_PRESSURE.search(seen.disruption_words or "") is not None
        ),
        "NodeReplacement",
        "Infrastructure",
        "a pod was evicted because its node's disk was full",
        blames_node="Repeated",
        of_lost_agent=True,
    ),
    Row(
        "NodeCordoned",
        lambda seen: _has_lost_pod(seen) and seen.node_cordoned,
        "NodeReplacement",
        "Infrastructure",
        "a pod was lost on a cordoned node",
        of_lost_agent=True,
    ),
    Row(
        "PodLost",
        lambda seen: _has_lost_pod(seen) and (seen.disruption is not None or seen.pod_gone),
        "NodeReplacement",
        "Infrastructure",
        "a pod was taken away",
        of_lost_agent=True,
    ),
    Row(
        "AgentLost",
        lambda seen: seen.kind in (LEASE_EXPIRED, AGENT_RESTARTED),
        "NodeReplacement",
        "Infrastructure",
        "an agent stopped answering",
        blames_node="Repeated",
        of_lost_agent=True,
    ),
    Row(
        "NodeUnhealthy",
        lambda seen: seen.kind in (WORKER_EXIT, STALLED) and seen.node_problem is not None,
        "WorkerRestart",
        "Infrastructure",
        "a worker failed on an unhealthy node",
        blames_node="AtOnce",
    ),
    Row(
        "DeviceBroken",
        _shows(symptoms.DEVICE_BROKEN),
        "WorkerRestart",
        "Infrastructure",
        "a device or its links broke",
        blames_node="AtOnce",
    ),
    Row(
        "CollectiveTimeout",
        _shows(symptoms.COLLECTIVE_TIMEOUT),
        "WorkerRestart",
        "Application",
        "a collective timed out",
    ),
    Row(
        "Hang",
        lambda seen: seen.kind == STALLED,
        "WorkerRestart",
        "Application",
        "no step came, and no worker had ended",
        blames_node="Repeated",
    ),
    Row(
        "DeviceError",
        _shows(symptoms.DEVICE_ERROR),
        "WorkerRestart",
        "Application",
        "a program failed on the device",
        blames_node="Repeated",
    ),
    Row(
        "PeerLost",
        _shows(symptoms.PEER_LOST),
        "WorkerRestart",
        "Infrastructure",
        "workers lost each other, and no cause but the network is known",
    ),
    Row(
        "WorkerKilled",
        lambda seen: seen.kind == WORKER_EXIT and seen.signal in (signal.SIGKILL, signal.SIGTERM),
        "WorkerRestart",
        "Infrastructure",
        "a worker was killed from outside",
    ),
    Row(
        "WorkerCrashed",
        lambda seen: seen.signal in _CRASHES,
        "WorkerRestart",
        "Application",
        "a worker crashed",
        blames_node="Repeated",
    ),
    Row(
        "WorkerError",
        lambda seen: seen.kind == WORKER_EXIT and seen.exit_code is not None,
        "WorkerRestart",
        "Application",
        "a worker failed",
    ),
    Row(
        "PodFailed",
        lambda seen: seen.kind == POD_FAILED,
        "NodeReplacement",
        "Application",
        "a training pod failed before it joined a round",
    ),
    Row(
        "JobFailed",
        lambda seen: seen.kind == JOB_FAILED,
        "NewAttempt",
        "Application",
        "the training Job failed",
    ),
    Row(
        "Unknown",
        lambda _seen: True,
        "WorkerRestart",
        "Application",
        "a round broke for a reason that no rule knows",
    ),
)


def fault(evidence: Evidence) -> Fault:
    return Fault(next(row for row in TABLE if row.matches(evidence)), evidence)


def outlasts(told: str, found: str) -> bool:
    """Whether an incident's class `told` stays, though what is seen now would be `found`: of the
    reasons why an agent was lost, the one that stands first in the table.
    """
    reasons = [row.name for row in TABLE if row.of_lost_agent]
    return told in reasons and found in reasons[reasons.index(told) + 1 :]


def blame(fault_class: str) -> Blame:
    """Of a row by its name; a row that is no more blames nobody."""
    return next((row.blames_node for row in TABLE if row.name == fault_class), "Never")


def _detailed(words: str, seen: Evidence) -> str:
    if seen.signal is not None:
        return f"{words} by {_signal_name(seen.signal)}"
    return words if seen.exit_code is None else f"{words} with exit code {seen.exit_code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
