"""Starts the ranks of a system, has them train a block at a time, and hears what they report."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pretrain_llm.agent import fork_server
from pretrain_llm.contract import codec, environment
from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.reports import WorkerReport

from . import worker
from .worker import Task

# On CPU. Pages of 4 KiB lie in the caches as luck has it. And what a step frees stays with the
# process, as with torch's allocator on a GPU: else the kernel clears pages anew in each step, a
# tenth of its time; how many depends on what lies above them, and equal programs differ by 3 %.
_ALLOCATOR = (
    "glibc.malloc.hugetlb=1",
    "glibc.malloc.mmap_max=0",
    "glibc.malloc.arena_max=1",
    f"glibc.malloc.trim_threshold={1 << 34}",
    f"glibc.malloc.top_pad={1 << 26}",
)


def warm_up(run: RunConfig, folder: Path) -> None:
    """Returns once workers of such runs are forked from a process with all imports done."""
    path = folder / "run.json"
    path.write_text(codec.to_json(run))
    os.environ[environment.CONFIG] = str(path)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if run.nodes.device == "cpu":
        os.environ["GLIBC_TUNABLES"] = ":".join(_ALLOCATOR)
    fork_server.start("pretrain_llm.training.preload")
    fork_server.wait_until_warm()


@dataclass
class Rank:
    process: fork_server.Process
    line: Connection

    def heard(self) -> dict[str, Any]:
        """Raises RuntimeError where the rank has died."""
        try:
            found: dict[str, Any] = self.line.recv()
        except EOFError:
            raise RuntimeError("a worker has died; its traceback is above") from None
        return found


@dataclass
class System:
    ranks: list[Rank]
    reports: list[WorkerReport] = field(default_factory=list)

    def block(self) -> float:
        """Seconds of the next block, of rank 0. Raises RuntimeError where a rank has died."""
        self._tell(goes_on=True)
        return float(self._heard()["seconds"])

    def warm_up(self) -> None:
        """Returns once two blocks are trained. Raises RuntimeError as `block` does."""
        self._heard()
        self.block()

    def close(self) -> dict[str, Any]:
        """What rank 0 has to say at the end."""
        self._tell(goes_on=False)
        found = self._heard()
        for rank in self.ranks:
            rank.process.join()
        return found

    def _tell(self, *, goes_on: bool) -> None:
        for rank in self.ranks:
            rank.line.send(goes_on)

    def _heard(self) -> dict[str, Any]:
        found, *_ = [rank.heard() for rank in self.ranks]  # all have trained it then
        return found


@contextlib.contextmanager
def started(task: Task, ranks: int) -> Iterator[System]:
    """Not warm yet, so that several start at once. Whatever is alive at the end is killed."""
    with tempfile.TemporaryDirectory(prefix="throughput-") as name, _inbox(Path(name)) as inbox:
        placed = replace(task, run=replace(task.run, volume=name))
        port = _free_port()
        system = System([_rank(placed, Path(name), ranks, rank, port) for rank in range(ranks)])
        listener = threading.Thread(target=_listen, args=(inbox, system), daemon=True)
        listener.start()
        try:
            yield system
        finally:
            for each in system.ranks:
                each.process.kill()
                each.process.join()
                each.line.close()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as closer:
                closer.sendto(b"", inbox.getsockname())
            listener.join()


def _free_port() -> int:
    """For the first rank's store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rank(task: Task, folder: Path, ranks: int, rank: int, port: int) -> Rank:
    own = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        environment.REPORT_SOCKET: str(folder / "reports"),
    }
    line, its_end = fork_server.CONTEXT.Pipe()
    process = fork_server.CONTEXT.Process(target=worker.main, args=(task, own, its_end))
    process.start()
    its_end.close()
    return Rank(process, line)


@contextlib.contextmanager
def _inbox(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(folder / "reports"))
        yield inbox


def _listen(inbox: socket.socket, system: System) -> None:
    while text := inbox.recv(1 << 16):
        system.reports.append(codec.from_json(WorkerReport, text))
