"""Where the workers of a stalled round stand, before they are killed.

A worker answers a signal with the Python stacks of all its threads (faulthandler: its handler is
C's and needs no GIL, so it also answers while C code holds that). A worker that is stopped or stuck
in the kernel cannot answer: its process state is all there is. Nothing here waits for the run's
volume, which may be what hangs: copies are written by a thread that nobody waits for.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..contract.reports import StackReport

SIGNAL = signal.SIGUSR1
ANSWER_SECONDS = 1.5  # an answer takes milliseconds on an idle machine
LOOK_SECONDS = 0.02
SETTLED_LOOKS = 5  # without a change
KEPT_FRAMES = 8

_SECTION = "(most recent call first):"
_FRAME = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$')

logger = logging.getLogger(__name__)


def answer(path: str) -> None:
    """In a worker: from now on the signal writes all threads' stacks to `path`."""
    file = open(path, "w", encoding="utf-8")  # noqa: SIM115  open for as long as the process lives
    faulthandler.register(SIGNAL, file=file, all_threads=True)


@dataclass(frozen=True)
class Stood:
    """One worker: its process's state, and what it answered."""

    rank: int
    state: str  # StackReport.state
    text: str

    def report(self, round_number: int, path: PurePosixPath) -> StackReport:
        return StackReport(
            round=round_number,
            rank=self.rank,
            state=self.state,
            frames=main_frames(self.text),
            path=str(path) if self.text else None,
        )


def collect(pids: Mapping[int, int], files: Mapping[int, Path]) -> list[Stood]:
    """Asks all workers at once; both arguments are by rank. Takes at most ANSWER_SECONDS."""
    states = {rank: process_state(pid) for rank, pid in pids.items()}
    waiting = {rank for rank, state in states.items() if state not in ("", "T", "t", "Z", "X")}
    for rank in waiting:
        with suppress(ProcessLookupError):
            os.kill(pids[rank], SIGNAL)
    texts = _answers({rank: files[rank] for rank in waiting})
    return [Stood(rank, states[rank], texts.get(rank, "")) for rank in sorted(pids)]


def _answers(files: Mapping[int, Path]) -> dict[int, str]:
    """What each file says once it grows no more: a dump has no end mark."""
    texts: dict[int, str] = {}
    unchanged = dict.fromkeys(files, 0)  # looks; a worker may be held up in the middle of its dump
    deadline = time.monotonic() + ANSWER_SECONDS
    while any(n < SETTLED_LOOKS for n in unchanged.values()) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        for rank, file in files.items():
            text = _text(file)
            unchanged[rank] = unchanged[rank] + 1 if text and text == texts.get(rank) else 0
            texts[rank] = text
    return texts


def save(stood: Sequence[Stood], paths: Mapping[int, PurePosixPath]) -> None:
    """Copies the answers to `paths`, by rank, in a thread of their own."""
    threading.Thread(target=_save, args=(stood, paths), name="stacks", daemon=True).start()


def _save(stood: Sequence[Stood], paths: Mapping[int, PurePosixPath]) -> None:
    for worker in stood:
        path = Path(paths[worker.rank])
        try:
            if worker.text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(worker.text)
        except OSError as error:
            logger.warning("stacks of worker %d: %s", worker.rank, error)


def process_state(pid: int) -> str:
    """The kernel's letter for a process; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def main_frames(text: str) -> tuple[str, ...]:
    """Of the main thread, which faulthandler names last: `file:line function`, innermost first."""
    last = text.rpartition(_SECTION)[2]
    frames = [match for line in last.splitlines() if (match := _FRAME.match(line))]
    return tuple(
        f"{_short(frame['file'])}:{frame['line']} {frame['function']}"
        for frame in frames[:KEPT_FRAMES]
    )


def _short(file: str) -> str:
    """From the package on, or the last two parts."""
    _, found, inside = file.rpartition("site-packages/")
    return inside if found else "/".join(file.split("/")[-2:])


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
