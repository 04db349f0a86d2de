"""What a program's own words say of why it failed: one ordered table, first match wins. Pure.

The agent looks for these in the last lines that a dead worker wrote to stderr, the coordinator
tells first causes from echoes by them, and the operator classes faults by them. Only texts that
torch, CUDA, NCCL, gloo, torchtitan, Python and the kernel are known to write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

NON_FINITE = "NonFinite"  # the loss or the gradient is no number: the data's or optimiser's doing
STORAGE_FULL = "StorageFull"
DEVICE_MEMORY = "DeviceMemory"
DEVICE_BROKEN = "DeviceBroken"  # a device, its memory or its links: hardware
DEVICE_ERROR = "DeviceError"  # on a device, with no sign of broken hardware: the program
COLLECTIVE_TIMEOUT = "CollectiveTimeout"  # NCCL's watchdog or gloo gave up waiting for a peer
PEER_LOST = "PeerLost"

# What the peers of a failed worker say. Who gave up waiting knows more than who lost a connection:
# a process ended at the other end of that.
ECHOES = (COLLECTIVE_TIMEOUT, PEER_LOST)

MAX_LINES = 3  # of stderr, in a report
MAX_CHARACTERS = 300  # of each

# Numbers for which NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors) has a reset of the
# GPU, a restart of the machine or a repair of memory or NVLink as the immediate action; and 94, a
# contained memory error, whose GPU is to be reset when convenient. Not 63, 92, 121, which harm
# nothing by themselves; 154 tells the action for another one, in words. The rest is the program's.
_MEMORY_XIDS = (48, 64, 94, 95, 140, 156, 171, 172)
_LINK_XIDS = (74, 79, 136, *range(144, 151))
_PROCESSOR_XIDS = (46, 54, 62, 109, 110, 119, 120, 143, 158)
HARDWARE_XIDS = frozenset((*_MEMORY_XIDS, *_LINK_XIDS, *_PROCESSOR_XIDS))
_XID = re.compile(r"\bXid\b(?:\s*\([^)]*\))?\D{0,3}(\d+)", re.IGNORECASE)
_HARDWARE = re.compile(
    r"uncorrectable (ecc|nvlink)|fallen off the bus|hardware stack error|gpu is lost"
    r"|no cuda-capable device|cuda-capable device\(s\) is/are busy or unavailable"
    r"|system not yet initialized|gpu recovery action changed from .+ to \w+ \((?!none)",
    re.IGNORECASE,
)
_PYTHON = re.compile(
    r"^(?:\[rank\d+\]:\s*)?(?:Fatal Python error\b|[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)\b)"
)
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;]*m|[^\x20-\x7e\u00a0-\U0010ffff]")


def _says(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda text: compiled.search(text) is not None


def _is_hardware(text: str) -> bool:
    numbers = {int(found) for found in _XID.findall(text)}
    return bool(numbers & HARDWARE_XIDS) or _HARDWARE.search(text) is not None


# The device's own words stand before the collectives': a rank whose kernel failed hears of its
# peers too. NonFinite is before both: torchtitan's check is a device-side assertion on CUDA.
TABLE: tuple[tuple[str, Callable[[str], bool]], ...] = (
    (NON_FINITE, _says(r"(loss|gradient norm|grad_norm) is (not finite|nan|inf)")),
    (
        STORAGE_FULL,
        _says(r"no space left on device|errno 28\b|disk quota exceeded|errno 122\b"),
    ),
    (DEVICE_BROKEN, _is_hardware),
    (
        DEVICE_MEMORY,
        _says(r"cuda out of memory|cuda error: out of memory|cublas_status_alloc_failed"),
    ),
    (DEVICE_ERROR, _says(r"cuda error|cudaError[A-Z]|cublas_status|cudnn_status|\bxid\b")),
    (
        COLLECTIVE_TIMEOUT,
        _says(
            r"collective operation timeout|watchdog caught|watchdog.{0,40}timed? ?out"
            r"|timed out waiting \d+ms for (recv|send) operation"
        ),
    ),
    (PEER_LOST, _says(r"connection (closed|reset) by peer|remote process exited")),
)


@dataclass(frozen=True)
class Diagnosis:
    """What some lines say of a failure; both empty where they say nothing."""

    symptom: str | None = None  # a name of TABLE
    lines: tuple[str, ...] = ()  # that say it, oldest first, bounded


def symptom(text: str) -> str | None:
    return next((name for name, matches in TABLE if matches(text)), None)


def diagnosis(lines: Iterable[str]) -> Diagnosis:
    """The first row of the table that any line matches; else Python's last exception line."""
    known = [_UNPRINTABLE.sub("", line).strip() for line in lines]
    for name, matches in TABLE:
        if found := [line for line in known if matches(line)]:
            return Diagnosis(name, _bounded(found))
    exceptions = [line for line in known if _PYTHON.match(line)]
    return Diagnosis(None, _bounded(exceptions[-1:]))


def _bounded(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line[:MAX_CHARACTERS] for line in lines))[:MAX_LINES]
