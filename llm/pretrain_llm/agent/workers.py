"""The worker processes of one round on this node: start, wait, stop, and how each ended.

torch's own MultiprocessContext is not used: it notices a death late, then gives the siblings 30 s
before it kills them, reports only one of several failures, and waits for ever for a worker that
hangs after its function returned.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ..contract import codec, environment, exit_codes, symptoms
from ..contract.reports import FaultReport
from ..contract.results import StageError
from . import fork_server, memory, worker_main
from .output import Output
from .worker_main import Launch

KILL_SECONDS = 20.0  # after which a killed worker counts as stuck in the kernel

logger = logging.getLogger(__name__)

MAX_ERROR_CHARACTERS = 4000  # of an error that is reported


class StuckWorkerError(RuntimeError):
    """A worker outlived SIGKILL: it holds its device, so nothing new can start on this node."""


@dataclass(frozen=True)
class Ending:
    """How one worker ended."""

    rank: int
    time: float
    exit_code: int  # negative: by that signal
    out_of_memory: bool
    error: StageError | None
    stderr: tuple[str, ...] = ()  # its last lines

    @property
    def is_orderly(self) -> bool:
        return self.exit_code in (exit_codes.OK, exit_codes.SAVED)

    def fault(self, round_number: int) -> FaultReport:
        signalled = self.exit_code < 0
        told = self._diagnosis()
        return FaultReport(
            round=round_number,
            rank=self.rank,
            time=self.time,
            exit_code=None if signalled else self.exit_code,
            signal=-self.exit_code if signalled else None,
            out_of_memory=self.out_of_memory,
            error_kind=self.error.kind if self.error else None,
            error_message=_bounded(str(self.error)) if self.error else None,
            step=self.error.step if self.error else None,
            symptom=told.symptom,
            stderr=told.lines,
        )

    def _diagnosis(self) -> symptoms.Diagnosis:
        """What its error and its stderr say; an exception that has left an error need not twice.

        What was written before a kill from outside is not why it was killed.
        """
        if self.exit_code in (-signal.SIGKILL, -signal.SIGTERM):
            return symptoms.Diagnosis()
        error = str(self.error).splitlines() if self.error else []
        told = symptoms.diagnosis((*error, *self.stderr))
        return symptoms.Diagnosis() if self.error and told.symptom is None else told


def _bounded(text: str) -> str:
    """Its beginning and its end: torch's error of a checkpoint has a traceback of every rank."""
    half = MAX_ERROR_CHARACTERS // 2
    return text if len(text) <= 2 * half else f"{text[:half]} … {text[-half:]}"


class Workers:
    """Started by the constructor. Endings are found by `wait` and stay until the next round."""

    def __init__(self, launches: Sequence[Launch]) -> None:
        self._oom_kills = memory.read_oom_kills()
        self._launches = launches
        started = [_started(launch, is_alone=len(launches) == 1) for launch in launches]
        self._processes = [process for process, _ in started]
        self._stderr = {
            launch.rank: pair[1] for launch, pair in zip(launches, started, strict=True)
        }
        self.endings: list[Ending] = []
        self._is_asked = False

    @property
    def pids(self) -> dict[int, int]:
        """By local rank."""
        pairs = zip(self._launches, self._processes, strict=True)
        return {launch.local_rank: process.pid or 0 for launch, process in pairs}

    @property
    def stack_files(self) -> dict[int, Path]:
        """By rank: where a worker answers with its stacks."""
        return {
            launch.rank: Path(launch.variables[environment.STACK_FILE]) for launch in self._launches
        }

    @property
    def pids_by_rank(self) -> dict[int, int]:
        return {launch.rank: self.pids[launch.local_rank] for launch in self._launches}

    @property
    def all_ended(self) -> bool:
        return len(self.endings) == len(self._processes)

    def wait(self, seconds: float, bell: int) -> None:
        """Returns when a worker ends, when something is written to `bell`, or after a while."""
        known = {ending.rank for ending in self.endings}
        pairs = zip(self._launches, self._processes, strict=True)
        running = {p.sentinel: (launch, p) for launch, p in pairs if launch.rank not in known}
        for ready in wait([*running, bell], timeout=seconds):
            if ready != bell:
                launch, process = running[ready]  # type: ignore[index]
                process.join()
                self.endings.append(self._ending(launch, process.exitcode))

    def terminate(self) -> None:
        """Asks for a checkpoint and an end, once."""
        if self._is_asked:
            return
        self._is_asked = True
        for process in self._processes:
            process.terminate()

    def kill(self) -> list[Ending]:
        """Ends them and all they have started, and returns failures that nobody has seen yet.

        A process that aborts is seen late, and its peers may have broken the round meanwhile.
        Raises StuckWorkerError.
        """
        dead = [process for process in self._processes if process.exitcode is not None]
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.kill()  # also where it had no group of its own yet
        deadline = time.monotonic() + KILL_SECONDS
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                raise StuckWorkerError(f"worker {process.pid} did not die of SIGKILL")
        return self._unseen(dead)

    def _unseen(self, dead: Sequence[fork_server.Process]) -> list[Ending]:
        """Failures not in `endings` yet: of those `dead` before they were killed, or of others that
        no signal of ours has ended.
        """
        known, found = {ending.rank for ending in self.endings}, []
        for launch, process in zip(self._launches, self._processes, strict=True):
            if launch.rank in known:
                continue
            ending = self._ending(launch, process.exitcode)
            self.endings.append(ending)
            is_asked = ending.is_orderly or ending.exit_code == -signal.SIGTERM
            if not is_asked and (process in dead or ending.exit_code != -signal.SIGKILL):
                found.append(ending)
        return found

    def _ending(self, launch: Launch, code: int | None) -> Ending:
        code = exit_codes.ERROR if code is None else code
        by_kernel = code == -signal.SIGKILL and memory.read_oom_kills() > self._oom_kills
        error = _read_error(launch.variables[environment.ERROR_FILE])
        logger.info("worker %d ended: exit code %d", launch.rank, code)
        stderr = self._stderr[launch.rank].last_lines()
        return Ending(launch.rank, time.time(), code, by_kernel, error, stderr)


def write_pids(path: Path, round_number: int, launches: Sequence[Launch], workers: Workers) -> None:
    """Names the workers' pids for fault injection; the file is whole at any time."""
    listed = [
        {"rank": launch.rank, "localRank": launch.local_rank, "pid": workers.pids[i]}
        for i, launch in enumerate(launches)
    ]
    document = {"agent": os.getpid(), "round": round_number, "workers": listed}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document))
    part.replace(path)


def _started(launch: Launch, *, is_alone: bool) -> tuple[fork_server.Process, Output]:
    """The process and its stderr; the pod's log has the rank on each line, but not of a single."""
    Path(launch.variables[environment.ERROR_FILE]).unlink(missing_ok=True)
    prefix = b"" if is_alone else f"[{launch.rank}] ".encode()
    stdout: Connection | None = None
    stderr_end, stderr = fork_server.CONTEXT.Pipe(duplex=False)
    if not is_alone:
        stdout_end, stdout = fork_server.CONTEXT.Pipe(duplex=False)
        Output(stdout_end, sys.stdout.buffer, prefix)
    process = fork_server.CONTEXT.Process(target=worker_main.run, args=(launch, stdout, stderr))
    process.start()
    for writing in filter(None, (stdout, stderr)):
        writing.close()
    return process, Output(stderr_end, sys.stderr.buffer, prefix)


def _read_error(path: str) -> StageError | None:
    try:
        return codec.from_json(StageError, Path(path).read_bytes())
    except (OSError, codec.DecodeError):
        return None
