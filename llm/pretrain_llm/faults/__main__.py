"""python -m pretrain_llm.faults KIND [--rank R]: makes one fault in this training pod.

`pretrain faults inject RUN KIND` runs it by exec. Refuses, with exit code 64 and the remedy, unless
the run's spec.recovery.faultInjection is true.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..agent import memory
from ..contract import config, environment, exit_codes, injection
from ..errors import InputError
from . import checkpoints, hook, requests

ANSWER_SECONDS = 0.5  # for this program's words to reach the user before the container ends
SAVE_SECONDS = 0.5  # for another rank to complete the checkpoint that it has in hand
_FIELD = "spec.recovery.faultInjection"


@dataclass(frozen=True)
class Pod:
    """The processes that the agent lists in workers.json, and where they leave things."""

    scratch: Path
    agent: int  # pid
    workers: dict[int, int]  # rank -> pid


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        print(inject(options, os.environ), flush=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return exit_codes.BAD_INPUT
    return exit_codes.OK


def inject(options: argparse.Namespace, variables: Mapping[str, str]) -> str:
    """What was done, in words. Raises InputError, OSError."""
    if not hook.is_allowed(variables):
        raise InputError(
            "this pod does not allow injected faults",
            field=_FIELD,
            value="false",
            remedy="Set it to true: the run saves and goes on in a new attempt that allows them.",
        )
    found = pod(Path(variables.get(environment.SCRATCH) or environment.SCRATCH_PATH))
    if options.kind in injection.OF_POD:
        return _kill_pod(options.kind, found)
    rank = _rank(found, options.rank)
    if options.kind in injection.SIGNALS:
        return _send(injection.SIGNALS[options.kind], found, rank)
    if options.kind in injection.OF_CHECKPOINT:
        _send(signal.SIGSTOP, found, rank)  # no newer checkpoint is begun meanwhile
        try:
            time.sleep(SAVE_SECONDS)
            return f"{_damage(options.kind, variables)}; {_send(signal.SIGKILL, found, rank)}"
        finally:
            _send(signal.SIGCONT, found, rank)
    _require_memory_limit(options.kind)
    request = requests.Request(options.kind, options.seconds, options.steps)
    requests.leave(requests.path(found.scratch, rank), request)
    if request.at_start:
        return f"rank {rank} is to meet {options.kind}; {_send(signal.SIGKILL, found, rank)}"
    return f"rank {rank} is to meet {options.kind} at its next step"


def pod(scratch: Path) -> Pod:
    """Raises InputError where no round has begun in this pod."""
    try:
        listed = json.loads((scratch / "workers.json").read_text())
    except FileNotFoundError:
        raise InputError(
            "no worker has been started in this pod",
            field="--pod",
            value=os.environ.get(environment.POD_NAME, "this one"),
            remedy="Choose a pod that is in the round, or wait for one.",
        ) from None
    workers = {worker["rank"]: worker["pid"] for worker in listed["workers"]}
    return Pod(scratch, listed["agent"], workers)


def _rank(found: Pod, wanted: int | None) -> int:
    rank = min(found.workers) if wanted is None else wanted
    if rank in found.workers:
        return rank
    ranks = ", ".join(map(str, sorted(found.workers)))
    raise InputError(
        "this rank is not in this pod", field="--rank", value=rank, remedy=f"Here are {ranks}."
    )


def _send(number: signal.Signals, found: Pod, rank: int) -> str:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(found.workers[rank], number)
    return f"sent {number.name} to rank {rank}, pid {found.workers[rank]}"


def _damage(kind: str, variables: Mapping[str, str]) -> str:
    run = config.load(variables.get(environment.CONFIG, environment.CONFIG_PATH))
    try:
        return checkpoints.damage(kind, Path(run.layout.checkpoints))
    except checkpoints.NothingToDamageError as error:
        raise InputError(
            str(error), field="KIND", value=kind, remedy="Wait for the first checkpoint."
        ) from None


def _require_memory_limit(kind: str) -> None:
    if kind == "host-oom" and memory.read_limit_bytes() is None:
        raise InputError(
            "this pod has no memory limit: the whole node would run out",
            field="spec.nodes.template.resources.limits.memory",
            value="",
            remedy="Set it, so that the kernel kills inside the pod.",
        )


def _kill_pod(kind: str, found: Pod) -> str:
    if kind == "agent-killed":
        _kill_afterwards([found.agent])
        return f"the agent, pid {found.agent}, is to be killed"
    # PID 1 is protected by the kernel, and ends with the agent.
    _kill_afterwards([*found.workers.values(), found.agent])
    return "the workers and the agent are to be killed"


def _kill_afterwards(pids: Sequence[int]) -> None:
    """In a process of its own: this one ends with the container, and its words must be out then."""
    if os.fork():
        return
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    time.sleep(ANSWER_SECONDS)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pretrain_llm.faults", description=__doc__)
    parser.add_argument("kind", choices=injection.KINDS, metavar="KIND")
    parser.add_argument("--rank", type=int, help="default: the lowest of this pod")
    parser.add_argument("--seconds", type=float, default=injection.DEFAULT_SECONDS)
    parser.add_argument("--steps", type=int, default=injection.DEFAULT_STEPS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
