"""torch's key-value store, over which a round's workers find each other. The only torch here.

Every round gets an empty one on the same port. Since torch 2.15 workers no longer prefix their
keys with the restart they belong to, so in a store that lived on they would read the addresses of
the round before ("Gloo connectFullMesh failed … Connection refused"). It also cuts the connections
of workers that a partition kept alive. Running workers do not need it.
"""

from __future__ import annotations

from datetime import timedelta

from torch.distributed import TCPStore

TIMEOUT = timedelta(seconds=300)


class RoundStore:
    def __init__(self, port: int) -> None:
        self._port = port
        self.renew()

    def renew(self) -> None:
        """Closes the store, if there is one, and opens an empty one. Raises torch's DistError."""
        self._store = None  # its server stops with its last reference
        self._store = TCPStore(
            "0.0.0.0",  # noqa: S104  a pod serves its network
            self._port,
            is_master=True,
            wait_for_workers=False,
            timeout=TIMEOUT,
        )
