"""torch's rendezvous, answered by the coordinator: joins, waits, and tells when to join again."""

from __future__ import annotations

import logging
from datetime import timedelta

from torch.distributed import DistError, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousGracefulExitError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

from ..contract import protocol
from ..contract.protocol import RoundView
from .bell import Bell
from .link import Link
from .settings import Settings
from .stop import StopRequest, StopRequestedError

LOOK_SECONDS = 0.5  # the bell rings earlier whenever there is news
STORE_TIMEOUT = timedelta(seconds=10)

logger = logging.getLogger(__name__)


class CoordinatorRendezvous(RendezvousHandler):
    def __init__(self, settings: Settings, link: Link, bell: Bell, stop: StopRequest) -> None:
        self._settings = settings
        self._link = link
        self._bell = bell
        self._stop = stop

    def next_rendezvous(self) -> RendezvousInfo:
        """Waits until the coordinator names a round with this agent in it.

        Raises RendezvousGracefulExitError once the run is finished, StopRequestedError.
        """
        self._link.stand(protocol.WAITING)
        while True:
            view = self._link.view
            if view.finished:
                raise RendezvousGracefulExitError("the run is finished")
            if self._stop.is_made:
                raise StopRequestedError(is_saved=True)
            if self._is_new(view) and (info := self._joined(view)):
                return info
            self._bell.wait(LOOK_SECONDS)

    def _is_new(self, view: RoundView) -> bool:
        mine = view.rank(self._settings.agent)
        return view.round > self._link.standing.round and not view.broken and mine is not None

    def _joined(self, view: RoundView) -> RendezvousInfo | None:
        """The round's place for this agent; None: the store cannot be reached (yet)."""
        host, port = self._settings.store_host, self._settings.store_port
        try:
            store = TCPStore(host, port, is_master=False, timeout=STORE_TIMEOUT)
        except DistError as error:
            logger.warning("round %d: store %s:%d: %s", view.round, host, port, error)
            return None
        self._link.enter(view)
        rank = view.rank(self._settings.agent)
        assert rank is not None
        logger.info("round %d: rank %d of %d", view.round, rank, len(view.members))
        address = RendezvousStoreInfo(master_addr=host, master_port=port)
        return RendezvousInfo(store, rank, len(view.members), address)

    def num_nodes_waiting(self) -> int:
        """torch's question; 1 makes it stop the workers and come to the next rendezvous."""
        view, mine = self._link.view, self._link.standing.round
        return int(view.round > mine or (view.round == mine and view.broken))

    def get_backend(self) -> str:
        return "pretrain-coordinator"

    @property
    def use_agent_store(self) -> bool:
        """Workers meet in the coordinator's store, which is empty when a round starts."""
        return True

    def get_run_id(self) -> str:
        return self._settings.run

    def is_closed(self) -> bool:
        return self._link.view.finished

    def set_closed(self) -> None:
        """Only the coordinator finishes a run."""

    def shutdown(self) -> bool:
        return True
