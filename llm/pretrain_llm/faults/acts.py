"""What a worker does to itself on request. Texts are those that the real libraries write."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from typing import NoReturn

CUDA_ERROR = "CUDA error: an illegal memory access was encountered"
XID = "NVRM: Xid (PCI:0000:cb:00): 79, pid={pid}, GPU has fallen off the bus."
WATCHDOG = (
    "[Rank {rank}] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, "
    "OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600012 milliseconds before timing out."
)
LAST_WORDS = "frame #0: std::terminate"
DEVICE_OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which 11.19 MiB is free."
)
SPIKE_FACTOR = 4.0  # by which this rank's part of every weight grows
_BLOCK_BYTES = 64 << 20

ScaleWeights = Callable[[float], None]


def exit_one() -> NoReturn:
    raise SystemExit(1)


def raise_error() -> NoReturn:
    raise RuntimeError("injected fault: worker-exception")


def take_lock_twice() -> None:
    """The other ranks wait in their next collective for this one."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def hold_gil() -> None:
    """PyDLL, unlike CDLL, keeps the GIL during a call."""
    ctypes.PyDLL(None).sleep(1 << 30)


def raise_cuda_error() -> NoReturn:
    raise RuntimeError(CUDA_ERROR)


def say_and_abort(text: str) -> NoReturn:
    """As C++ code ends a process: words on stderr, and SIGABRT."""
    words = text.format(pid=os.getpid(), rank=os.environ.get("RANK", "0"))
    os.write(2, f"{words}\n{LAST_WORDS}".encode())
    os.abort()


def exhaust_host_memory() -> None:
    """Until the kernel kills for the cgroup's limit; memory counts once it is written."""
    held = []
    while True:
        held.append(b"\1" * _BLOCK_BYTES)


def exhaust_device_memory() -> NoReturn:
    import torch

    raise torch.OutOfMemoryError(DEVICE_OUT_OF_MEMORY)


def fill_storage() -> None:
    """From now on what this process writes does not fit."""

    def refuse(_file: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.fsync = refuse  # type: ignore[assignment]


def stall_storage() -> None:
    """From now on nothing that this process writes arrives."""
    os.fsync = lambda _file: threading.Event().wait()  # type: ignore[assignment,return-value]


def act(kind: str, scale_weights: ScaleWeights) -> None:
    """Does it; most kinds never return. `slow-rank` is the hook's own."""
    acts: dict[str, Callable[[], object]] = {
        "worker-exit": exit_one,
        "worker-exception": raise_error,
        "collective-deadlock": take_lock_twice,
        "hold-gil": hold_gil,
        "cuda-error": raise_cuda_error,
        "xid-on-stderr": lambda: say_and_abort(XID),
        "nccl-watchdog": lambda: say_and_abort(WATCHDOG),
        "nan-loss": lambda: scale_weights(float("nan")),
        "loss-spike": lambda: scale_weights(SPIKE_FACTOR),
        "host-oom": exhaust_host_memory,
        "device-oom": exhaust_device_memory,
        "device-oom-at-start": exhaust_device_memory,
        "storage-full": fill_storage,
        "storage-stalled": stall_storage,
    }
    acts[kind]()
