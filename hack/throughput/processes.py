"""Starts the ranks of a system, has them train a block at a time, and hears what they report."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pretrain_llm.contract import codec, environment
from pretrain_llm.contract.reports import WorkerReport

from .worker import Task

_ROOT = Path(__file__).parents[2]
# Where pages come to lie in the caches moves a process on CPU by 3 %, for its whole life. With huge
# pages and the same address layout for all, equal programs are within 0.5 % of each other.
_SAME_ADDRESSES = ("setarch", "--addr-no-randomize")
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclass
class System:
    workers: list[subprocess.Popen[str]]
    reports: list[WorkerReport] = field(default_factory=list)

    def block(self) -> float:
        """Seconds of the next block, of rank 0. Raises RuntimeError where a rank has died."""
        self._go_on()
        return float(self._heard()[0]["seconds"])

    def warm_up(self) -> None:
        """Returns once the first block is trained. Raises RuntimeError as `block` does."""
        self._heard()
        self.block()

    def close(self) -> dict[str, Any]:
        """What rank 0 has to say at the end."""
        for worker in self.workers:
            assert worker.stdin
            worker.stdin.close()
        found = self._heard()[0]
        for worker in self.workers:
            worker.wait()
        return found

    def _go_on(self) -> None:
        for worker in self.workers:
            assert worker.stdin
            worker.stdin.write("go on\n")
            worker.stdin.flush()

    def _heard(self) -> list[dict[str, Any]]:
        lines = [worker.stdout.readline() for worker in self.workers if worker.stdout]
        if not all(lines):
            raise RuntimeError("a worker has died; its traceback is above")
        return [json.loads(line) for line in lines]


@contextlib.contextmanager
def started(task: Task, ranks: int) -> Iterator[System]:
    """Not warm yet, so that several start at once. Whatever is alive at the end is killed."""
    with tempfile.TemporaryDirectory(prefix="throughput-") as name, _inbox(Path(name)) as inbox:
        text = codec.to_json(replace(task, run=replace(task.run, volume=name)))
        is_on_cpu = task.run.nodes.device == "cpu"
        system = System(
            [_worker(text, Path(name), ranks, place, is_on_cpu) for place in _places(ranks)]
        )
        listener = threading.Thread(target=_listen, args=(inbox, system), daemon=True)
        listener.start()
        try:
            yield system
        finally:
            for worker in system.workers:
                worker.kill()
                with worker:  # closes its pipes, and waits for it
                    pass
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as closer:
                closer.sendto(b"", inbox.getsockname())
            listener.join()


def _places(ranks: int) -> list[tuple[int, int]]:
    """Each rank with the port of the first one's store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return [(rank, port) for rank in range(ranks)]


def _worker(
    task: str, folder: Path, ranks: int, place: tuple[int, int], is_on_cpu: bool
) -> subprocess.Popen[str]:
    rank, port = place
    own = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(str(_ROOT / name) for name in ("llm", "operator", ".")),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        environment.REPORT_SOCKET: str(folder / "reports"),
    }
    steady = _SAME_ADDRESSES if is_on_cpu else ()
    worker = subprocess.Popen(
        [*steady, sys.executable, "-W", "ignore", "-m", "hack.throughput.worker"],
        cwd=_ROOT,
        env={**os.environ, **own, **(_HUGE_PAGES if is_on_cpu else {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin
    worker.stdin.write(task + "\n")
    worker.stdin.flush()
    return worker


@contextlib.contextmanager
def _inbox(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(folder / "reports"))
        yield inbox


def _listen(inbox: socket.socket, system: System) -> None:
    while text := inbox.recv(1 << 16):
        system.reports.append(codec.from_json(WorkerReport, text))
