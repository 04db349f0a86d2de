"""This node's checkpoints in memory, and the copies that it keeps for another node.

    worker    writes its shards ──report──▶ inbox
    agent     seal: hash, manifest ─▶ tell the coordinator ─▶ send a copy to the peer
    peer      verifies the copy ─▶ tells the coordinator
    coordinator   every node's shards are held twice: safe ─▶ agents remove what is older

The peer is the next node of the round, in a ring. Nothing here decides: the coordinator says what
is safe, and what a round starts from.
"""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import dataclass

from ..checkpoints import generations
from ..contract.memory import Generation, Holding, MemoryStanding, Shards
from ..contract.reports import MEMORY, PEER
from . import peers
from .link import Link, Standing
from .peers import Peer, TransferError
from .settings import MemorySettings

RETRY_SECONDS = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """What this node's workers start from, and how it came into memory."""

    generation: Generation
    source: str  # reports.MEMORY | PEER


@dataclass(frozen=True)
class _Part:
    """This agent's part in the round that it entered last."""

    round: int = 0
    rank: int = 0
    nodes: int = 0
    peer: str = ""  # address; empty: there is none


class Replicas:
    """Safe to use from any thread."""

    def __init__(self, settings: MemorySettings, link: Link, workers: int) -> None:
        self._settings, self._link, self._workers = settings, link, workers
        self.root = settings.root
        self._changed = threading.Condition()
        self._sealing = threading.Lock()
        self._holdings: dict[tuple[Generation, int], Holding] = {}
        self._oldest = Generation(0, 0)  # that anybody may still need
        self._part = _Part()
        self._sending: Peer | None = None
        self._sent: Generation | None = None  # newest that the peer of this round has
        self._problem: str | None = None
        self._has_news = self._is_closed = False

    def start(self) -> None:
        """Begins empty: what an agent before this one left belongs to no round that runs."""
        self.root.mkdir(parents=True, exist_ok=True)
        for left in self.root.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._server = peers.Server(
            self._settings.port, self.root, self._settings.token, self._is_wanted, self._hold
        )
        works = (self._server.serve_forever, self._work_until_closed)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()
        self._tell()

    def close(self) -> None:
        """Serves no longer, and ends the thread."""
        self._server.shutdown()
        self._server.server_close()
        with self._changed:
            self._is_closed = True
        self.wake()
        for thread in self._threads:
            thread.join()

    @property
    def address(self) -> str:
        """Where other agents reach this one's memory."""
        host = self._settings.host
        bracketed = f"[{host}]" if ":" in host else host
        return f"{bracketed}:{self._server.server_port}"

    def wake(self) -> None:
        """There is something new: shards of a worker, or a word of the coordinator's."""
        with self._changed:
            self._has_news = True
            self._changed.notify_all()

    def settle(self) -> None:
        """Seals what the workers of a round left whole. Called when they are dead."""
        try:
            self._seal()
        except OSError as error:
            self._complain(f"{type(error).__name__}: {error}")

    def enter(self, standing: Standing, rank: int) -> Restored | None:
        """Takes part in a round, before its workers start: what they can start from.

        Everything else is removed. None: from the volume.
        """
        restore, addresses = standing.memory.restore, standing.memory.addresses
        kept = restore.generation if restore else None
        peer = addresses[(rank + 1) % len(addresses)] if len(addresses) > 1 else ""
        with self._changed:
            if self._sending:
                self._sending.abandon()
            self._oldest = kept or Generation(standing.round, 0)
            self._part = _Part(standing.round, rank, len(standing.members), peer)
            self._sent = self._problem = None
            self._holdings = {key: held for key, held in self._holdings.items() if key[0] == kept}
        with self._sealing:
            generations.keep_only(self.root, kept)
        self._tell()
        if restore is None:
            return None
        restored = self._restored(restore.generation, restore.sources[rank], standing.round)
        self.wake()
        return restored

    def _restored(self, generation: Generation, source: str, number: int) -> Restored | None:
        rank = self._part.rank
        if (generation, rank) in self._holdings:
            return Restored(generation, MEMORY)
        if not source:
            return None

        def is_wanted() -> bool:
            view = self._link.view
            return view.round == number and not view.broken

        try:
            with Peer(source, self._settings.token) as peer:
                shards = peer.fetch(self.root, generation, rank, is_wanted)
        except TransferError as error:
            logger.error("%s of node %d did not come from %s: %s", generation, rank, source, error)
            return None
        logger.info("%s of node %d came from %s", generation, rank, source)
        self._hold(shards)
        return Restored(generation, PEER)

    # What is held

    def _hold(self, shards: Shards) -> None:
        held = Holding(shards.generation, shards.rank, shards.nodes, shards.bytes)
        with self._changed:
            self._holdings[held.generation, held.rank] = held
        self._tell()

    def _is_wanted(self, generation: Generation) -> bool:
        with self._changed:
            return generation >= self._oldest

    def _tell(self) -> None:
        """Within the lock: of two threads, the one that knows more must not tell first."""
        with self._changed:
            holdings = tuple(self._holdings[key] for key in sorted(self._holdings))
            self._link.hold(MemoryStanding(self.address, holdings, self._problem))

    # The thread

    def _work_until_closed(self) -> None:
        while not self._is_closed:
            with self._changed:
                self._changed.wait_for(lambda: self._has_news, RETRY_SECONDS)
                self._has_news = False
            try:
                self._release()
                self._seal()
                self._send()
            except OSError as error:
                self._complain(f"{type(error).__name__}: {error}")

    def _release(self) -> None:
        safe = self._link.view.memory.safe
        with self._changed:
            if safe is None or safe <= self._oldest:
                return
            self._oldest = safe
            self._holdings = {key: h for key, h in self._holdings.items() if key[0] >= safe}
        generations.keep(self.root, safe)
        self._tell()

    def _seal(self) -> None:
        with self._sealing:
            part = self._part
            for generation in generations.unsealed(self.root, part.rank, self._workers):
                if generation.round == part.round:
                    self._hold(generations.seal(self.root, generation, part.rank, part.nodes))

    def _send(self) -> None:
        """Gives the peer a copy of this node's newest shards, if it has none."""
        with self._changed:
            part = self._part
            own = [key[0] for key in self._holdings if key[1] == part.rank]
            if not own or not part.peer or max(own) == self._sent:
                return
            peer = self._sending = Peer(part.peer, self._settings.token)
        try:
            with peer:
                if shards := generations.read_shards(self.root, max(own), part.rank):
                    peer.send(self.root, shards)
        except TransferError as error:
            self._complain(f"no copy at {part.peer}: {error}")
        else:
            self._complain(None)
            with self._changed:
                self._sent = max(own) if part == self._part else None
        finally:
            with self._changed:
                self._sending = None

    def _complain(self, problem: str | None) -> None:
        with self._changed:
            is_news = problem != self._problem
            self._problem = problem
        if is_news:
            if problem:
                logger.warning("%s", problem)
            self._tell()
