"""What a program's own error says about whose fault it is. Pure.

Only texts that torch, CUDA, NCCL, gloo, torchtitan and the kernel are known to write; whatever is
not known here is the program's.
"""

from __future__ import annotations

import re

# Numbers that NVIDIA's XID catalogue (docs.nvidia.com/deploy/xid-errors) puts down to hardware,
# firmware or fabric: 48, 63, 64, 92, 94, 95, 140 memory (ECC, row remapping); 74, 121, 145-150
# NVLink and C2C; 79 off the bus; 62, 119, 120 the GPU's own processors; 154 needs a reset.
# 13, 31, 43, 45, 68, 69 and the like are what a faulty kernel of the program causes.
HARDWARE_XIDS = frozenset(
    (48, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120, 121, 140, *range(145, 151), 154)
)
_XID = re.compile(r"\bXid\b(?:\s*\([^)]*\))?\D{0,3}(\d+)", re.IGNORECASE)
_HARDWARE = re.compile(
    r"uncorrectable (ecc|nvlink)|fallen off the bus|hardware stack error|gpu is lost"
    r"|no cuda-capable device|cuda-capable device\(s\) is/are busy or unavailable"
    r"|system not yet initialized",
    re.IGNORECASE,
)
_DEVICE = re.compile(r"cuda error|cublas_status|cudnn_status|\bxid\b", re.IGNORECASE)
_TIMEOUT = re.compile(
    r"collective operation timeout|watchdog caught|watchdog.{0,40}timed? ?out"
    r"|timed out waiting \d+ms for (recv|send) operation",
    re.IGNORECASE,
)
# torchtitan's own assertion; the gradient's is other trainers'.
_NON_FINITE = re.compile(r"(loss|gradient norm|grad_norm) is (not finite|nan|inf)", re.IGNORECASE)
_NO_SPACE = re.compile(r"no space left on device|errno 28\b|disk quota exceeded|errno 122\b", re.I)
_DISK_PRESSURE = re.compile(r"ephemeral-storage|disk ?pressure|inodes", re.IGNORECASE)


def is_non_finite(message: str) -> bool:
    """The loss or the gradient is no number: the data's or the optimiser's doing."""
    return _NON_FINITE.search(message) is not None


def is_storage_full(message: str) -> bool:
    return _NO_SPACE.search(message) is not None


def is_hardware(message: str) -> bool:
    """A device, its memory or its links broke, by CUDA's words or an XID's number."""
    numbers = {int(found) for found in _XID.findall(message)}
    return bool(numbers & HARDWARE_XIDS) or _HARDWARE.search(message) is not None


def is_device(message: str) -> bool:
    """Something failed on a device; with no sign of broken hardware, the program did."""
    return _DEVICE.search(message) is not None


def is_collective_timeout(message: str) -> bool:
    """NCCL's watchdog or gloo gave up waiting for a peer."""
    return _TIMEOUT.search(message) is not None


def is_disk_pressure(message: str) -> bool:
    """The kubelet evicted a pod because the node's disk was full."""
    return _DISK_PRESSURE.search(message) is not None
