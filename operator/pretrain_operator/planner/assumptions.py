"""What no recipe says and every plan needs. All are arguments; the plan is printed with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pretrain_llm.contract.intervals import DEVICE_HOURS_PER_INTERRUPTION

GIB = 2.0**30


@dataclass(frozen=True)
class Device:
    name: str
    peak_flops: float  # dense bfloat16, FLOP/s
    memory_gib: float  # what vendors call GB
    source: str


_DEVICES = (
    Device("A100", 312e12, 80, "NVIDIA A100 80GB datasheet"),
    Device("H100", 989e12, 80, "NVIDIA H100 datasheet, SXM; printed figures are with sparsity"),
    Device("H100-PCIe", 756e12, 80, "NVIDIA H100 datasheet, PCIe"),
    Device("H200", 989e12, 141, "NVIDIA H200 datasheet"),
    Device("B200", 2250e12, 180, "NVIDIA DGX B200 datasheet: 36 PFLOPS of 8 with sparsity"),
    Device("L40S", 362e12, 48, "NVIDIA L40S datasheet: 733 TFLOPS with sparsity, rounded"),
    Device("MI300X", 1307e12, 192, "AMD Instinct MI300X datasheet"),
)
DEVICES: Mapping[str, Device] = {device.name: device for device in _DEVICES}


@dataclass(frozen=True)
class Assumptions:
    """Raises ValueError for what cannot be."""

    device: str = "H100"
    device_memory_gib: float | None = None  # None: the device's
    mfu: float = 0.40  # share of the peak that 6 N D alone reaches, attention not counted
    price: float = 2.50  # US dollars a device-hour
    stall_seconds: float | None = None  # a checkpoint's; None: from its size
    restart_seconds: float = 300.0  # from an interruption to the next new step
    device_hours_per_interruption: float = DEVICE_HOURS_PER_INTERRUPTION
    fragmentation: float = 0.05  # of what is allocated, lost by the caching allocator
    context_gib: float = 2.0  # CUDA context, NCCL buffers, kernels
    node_bytes_per_second: float = 450e9  # NVLink 4, one direction (NVIDIA H100 datasheet)
    network_bytes_per_second: float = 50e9  # one 400 Gb/s port a device (NVIDIA DGX H100 datasheet)
    staging_bytes_per_second: float = 20e9  # device to host, for the stall; to be measured

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise ValueError(f"device {self.device}: choose one of {', '.join(DEVICES)}")
        if not 0 < self.mfu <= 1:
            raise ValueError(f"mfu {self.mfu}: give a share of the peak, above 0 and at most 1")
        if not 0 <= self.fragmentation < 1:
            raise ValueError(f"fragmentation {self.fragmentation}: give a share below 1")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} {value}: give a positive number")
        for name in ("price", "restart_seconds", "context_gib"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)}: give 0 or more")

    @property
    def peak_flops(self) -> float:
        return DEVICES[self.device].peak_flops

    @property
    def device_bytes(self) -> float:
        given = self.device_memory_gib
        return (DEVICES[self.device].memory_gib if given is None else given) * GIB


_POSITIVE = (
    "device_memory_gib",
    "stall_seconds",
    "device_hours_per_interruption",
    "node_bytes_per_second",
    "network_bytes_per_second",
    "staging_bytes_per_second",
)
