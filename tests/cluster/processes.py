"""Starts the cluster's processes so that any later command can end exactly those, and no others.

A process writes its own line of /proc into the run directory before it becomes the real program,
so it is never running and unrecorded, even if the command that started it is killed in between.
Process id and start time together name a process; an id that the kernel has meanwhile given to
somebody else is left alone. Processes are daemons of their own session: nobody here waits for
them as a parent.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_RECORD_THEN_EXEC = 'read -r stat </proc/self/stat; printf "%s\\n" "$stat" >"$0"; exec "$@"'
_STARTED = time.monotonic()


class ClusterError(RuntimeError):
    """The local cluster cannot do what was asked; the message says what to do about it."""


@dataclass(frozen=True)
class Process:
    """One process, named unambiguously for as long as the machine is up."""

    pid: int
    start_ticks: int


def announce(message: str) -> None:
    """Says on standard error what is going on, with the seconds since this command started."""
    print(f"cluster {time.monotonic() - _STARTED:6.1f} s  {message}", file=sys.stderr, flush=True)


def run(
    *argv: str | Path,
    stdin: str | None = None,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Standard output of a command; raises ClusterError with what it said on failure."""
    words = [str(word) for word in argv]
    done = subprocess.run(
        words,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise ClusterError(f"'{' '.join(words)}' exited with {done.returncode}: {said}")
    return done.stdout


def wait_until(
    condition: Callable[[], bool], what: str, timeout_seconds: float, interval_seconds: float = 0.05
) -> None:
    """Polls until the condition holds; raises ClusterError naming what did not come about."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(interval_seconds)


def start(
    argv: Sequence[str | Path],
    *,
    name: str,
    directory: Path,
    network_namespace: str | None = None,
) -> Process:
    """Starts a daemon recorded as `name`, its output appended to <directory>/logs/<name>.log."""
    record = directory / "pids" / name
    log = directory / "logs" / f"{name}.log"
    record.parent.mkdir(exist_ok=True)
    log.parent.mkdir(exist_ok=True)
    record.unlink(missing_ok=True)
    enter = ["nsenter", f"--net=/run/netns/{network_namespace}"] if network_namespace else []
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", "sh", "-c", _RECORD_THEN_EXEC, record, *enter, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=True,
        )
    wait_until(lambda: _read_record(record) is not None, f"{name} to start", 10, 0.002)
    process = _read_record(record)
    assert process is not None
    return process


def recorded(directory: Path) -> dict[str, Process]:
    """All processes ever recorded in a run directory and not yet forgotten, by name."""
    found = {path.name: _read_record(path) for path in (directory / "pids").glob("*")}
    return {name: process for name, process in found.items() if process}


def children(process: Process) -> list[Process]:
    """The direct children of a process that is still running."""
    if not is_running(process):
        return []
    try:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    except FileNotFoundError:
        return []
    return list(filter(None, (identify(int(pid)) for pid in listed.split())))


def identify(pid: int) -> Process | None:
    """The process that has this id now."""
    return _process_of(_stat_line(pid))


def is_running(process: Process) -> bool:
    """Whether this very process still runs; a zombie that nobody reaped does not."""
    line = _stat_line(process.pid)
    return _process_of(line) == process and _fields(line)[0] not in "ZX"


def kill(processes: Iterable[Process], timeout_seconds: float = 20) -> None:
    """Ends processes with SIGKILL and returns when all are gone; the ones already gone are fine.

    SIGKILL at once, because the API server drains its watches for a minute after SIGTERM and
    nothing in a throw-away cluster is worth flushing.
    """
    handles = [handle for process in processes if (handle := _handle(process)) is not None]
    try:
        for handle in handles:
            with contextlib.suppress(ProcessLookupError):  # ended meanwhile
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        for handle in handles:
            if not select.select([handle], [], [], timeout_seconds)[0]:
                raise ClusterError(f"a killed process did not end within {timeout_seconds:g} s")
    finally:
        for handle in handles:
            os.close(handle)


def forget(directory: Path, name: str) -> None:
    """Drops the record of a process that has ended."""
    (directory / "pids" / name).unlink(missing_ok=True)


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.exists() else ""


def _handle(process: Process) -> int | None:
    """A descriptor that pins the process, opened before the check so that the id cannot turn."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if is_running(process):
        return handle
    os.close(handle)
    return None


def _read_record(path: Path) -> Process | None:
    try:
        line = path.read_text()
    except FileNotFoundError:
        return None
    return _process_of(line) if line.endswith("\n") else None


def _stat_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _fields(stat_line: str) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the second may have blanks and brackets."""
    return stat_line.rpartition(")")[2].split()


def _process_of(stat_line: str) -> Process | None:
    if not stat_line:
        return None
    return Process(pid=int(stat_line.split()[0]), start_ticks=int(_fields(stat_line)[19]))
