"""Which faults strike a soaked run, when and whom: a pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

# Injected in a pod, as `pretrain faults inject` does. Not those after which batches are skipped
# (nan-loss, loss-spike), nor host-oom, which needs a pod's own memory limit.
IN_POD = (
    "worker-sigkill",
    "worker-sigsegv",
    "worker-sigabrt",
    "worker-sigterm",
    "worker-sigstop",
    "worker-exit",
    "worker-exception",
    "collective-deadlock",
    "hold-gil",
    "cuda-error",
    "xid-on-stderr",
    "nccl-watchdog",
    "device-oom",
    "device-oom-at-start",
    "slow-rank",
    "storage-full",
    "storage-stalled",
    "agent-killed",
    "container-killed",
    "checkpoint-truncated",
    "checkpoint-bit-flipped",
    "checkpoint-manifest-missing",
)
# Done to processes by name: they strike whatever the run is doing, so also while it recovers.
COORDINATOR_KILLED = "coordinator-killed"
COORDINATOR_FROZEN = "coordinator-frozen"  # for longer than a lease
POD_DRAINED = "pod-drained"  # SIGTERM to the agent: it saves and leaves
NODE_LOST = "node-lost"  # the agent, and what its memory held
TWO_NODES_LOST = "two-nodes-lost"
OF_WORLD = (COORDINATOR_KILLED, COORDINATOR_FROZEN, POD_DRAINED, NODE_LOST, TWO_NODES_LOST)

KINDS = (*IN_POD, *OF_WORLD)
NODES = 2
INTERVAL = 10  # steps between checkpoints on the volume
FIRST_STEP = 2 * INTERVAL  # from here on there is a checkpoint to go back to
_AFTERSHOCK_SHARE = 0.3
_AFTERSHOCK_SECONDS = 4.0  # within which a recovery is under way


@dataclass(frozen=True)
class Strike:
    step: int  # not before it
    kind: str
    member: int  # node rank; slot of an aftershock
    after_seconds: float | None = None  # an aftershock: so long after the strike before


def schedule(seed: int, steps: int, count: int, kinds: Sequence[str] = KINDS) -> tuple[Strike, ...]:
    """`count` faults, each kind once before any comes twice, and an aftershock to some of them.

    Raises ValueError where there are more faults than steps for them.
    """
    places = range(FIRST_STEP, steps - INTERVAL)
    if count > len(places):
        raise ValueError(f"{count} faults need more than {steps} steps: --steps or fewer --faults")
    generator = random.Random(seed)
    rounds = -(-count // len(kinds))
    drawn = [kind for _ in range(rounds) for kind in generator.sample(kinds, len(kinds))][:count]
    strikes: list[Strike] = []
    for step, kind in zip(sorted(generator.sample(places, count)), drawn, strict=True):
        strikes.append(Strike(step, kind, generator.randrange(NODES)))
        if generator.random() < _AFTERSHOCK_SHARE:
            strikes.append(_aftershock(generator, step))
    return tuple(strikes)


def _aftershock(generator: random.Random, step: int) -> Strike:
    after_seconds = round(generator.uniform(0, _AFTERSHOCK_SECONDS), 1)
    return Strike(step, generator.choice(OF_WORLD), generator.randrange(NODES), after_seconds)
