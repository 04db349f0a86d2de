"""The faults that `python -m pretrain_llm.faults KIND` makes inside a training pod, by name."""

from __future__ import annotations

import signal

# To the process of one worker.
SIGNALS = {
    "worker-sigkill": signal.SIGKILL,
    "worker-sigsegv": signal.SIGSEGV,
    "worker-sigabrt": signal.SIGABRT,
    "worker-sigterm": signal.SIGTERM,
    "worker-sigstop": signal.SIGSTOP,
}
# Inside one worker, at its next step boundary.
IN_WORKER = (
    "worker-exit",
    "worker-exception",
    "collective-deadlock",
    "hold-gil",
    "cuda-error",
    "xid-on-stderr",
    "nccl-watchdog",
    "nan-loss",
    "loss-spike",
    "host-oom",
    "device-oom",
    "slow-rank",
    "storage-full",
    "storage-stalled",
)
# Inside one worker, before the first step of a new round.
AT_START = ("device-oom-at-start",)
# To the processes that keep the pod alive.
OF_POD = ("agent-killed", "container-killed")
# To the newest verified checkpoint; a worker is killed then, so that it is loaded.
OF_CHECKPOINT = ("checkpoint-truncated", "checkpoint-bit-flipped", "checkpoint-manifest-missing")

KINDS = (*SIGNALS, *IN_WORKER, *AT_START, *OF_POD, *OF_CHECKPOINT)

PROGRAM = ("python", "-m", "pretrain_llm.faults")
DEFAULT_SECONDS = 1.0  # that a slow rank is late at each step
DEFAULT_STEPS = 60  # for which it is late: over spec.recovery.stragglers.windowSteps' default
