"""What the health daemons of a node say of it, on the Node object. Pure; judges no run.

Daemons write conditions, each under names of its own. Those that speak of devices are known by
their words rather than by a list that ages: NVSentinel's GpuMemWatch, GpuNvlinkWatch,
SysLogsXIDError, SysLogsSXIDError and SysLogsGPUFallenOff, node-problem-detector's GPUMissing,
NVLinkStatusInactive and XIDHWErrors (as AKS configures it), NebiusGPUError, and EKS's
AcceleratedHardwareReady.
"""

from __future__ import annotations

import re
from typing import Any

from .names import REPAIRED_LABEL
from .observed import KubernetesObject

_OF_DEVICES = re.compile(r"gpu|xid|nvlink|nvswitch|ecc|infiniband|iblink|acceleratedhardware", re.I)
_OF_THE_SYSTEM = ("KernelDeadlock", "ReadonlyFilesystem")  # node-problem-detector's own


def problem(node: KubernetesObject) -> str | None:
    """The first condition that calls the node's devices or kernel unhealthy, in its own words."""
    conditions = node.get("status", {}).get("conditions") or ()
    return next((_words(entry) for entry in conditions if _is_problem(entry)), None)


def is_cordoned(node: KubernetesObject) -> bool:
    """Whether somebody, for example a health daemon, keeps new pods away."""
    return bool(node.get("spec", {}).get("unschedulable"))


def excluded_until(node: KubernetesObject, label: str) -> float:
    """Seconds since the epoch, as `label` says; 0 where the node has no such label."""
    return _seconds(node, label)


def repaired_at(node: KubernetesObject) -> float:
    """Seconds since the epoch, as whoever mended the node says; 0: nobody did."""
    return _seconds(node, REPAIRED_LABEL)


def _seconds(node: KubernetesObject, label: str) -> float:
    value = str((node["metadata"].get("labels") or {}).get(label, ""))
    return float(value) if value.isdecimal() else 0.0


def _is_problem(entry: dict[str, Any]) -> bool:
    kind = entry["type"]
    if kind not in _OF_THE_SYSTEM and not _OF_DEVICES.search(kind):
        return False
    return bool(entry.get("status") == ("False" if kind.endswith("Ready") else "True"))


def _words(entry: dict[str, Any]) -> str:
    return ": ".join(filter(None, (entry["type"], entry.get("message") or entry.get("reason"))))
