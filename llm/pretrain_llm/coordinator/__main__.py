"""python -m pretrain_llm.coordinator: one process beside a training attempt, without devices.

Reads PRETRAIN_CONFIG and PRETRAIN_ATTEMPT. Serves until it is told to stop; state is in memory
only, because every agent repeats what a new coordinator needs.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
import uuid
from datetime import timedelta
from types import FrameType

from ..contract import codec, config, environment, exit_codes
from . import ledger
from .ledger import Identity
from .rounds import Policy
from .server import Coordinator, Server

STORE_TIMEOUT = timedelta(seconds=300)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pretrain_llm.coordinator", description=__doc__)
    parser.add_argument("--http-port", type=int, default=environment.COORDINATOR_HTTP_PORT)
    parser.add_argument("--store-port", type=int, default=environment.STORE_PORT)
    parser.add_argument("--lease-seconds", type=float, default=Policy.lease_seconds)
    return parser.parse_args(argv)


def main() -> int:
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        run = config.load(os.environ.get(environment.CONFIG, environment.CONFIG_PATH))
        attempt = int(os.environ[environment.ATTEMPT])
    except (OSError, codec.DecodeError, KeyError, ValueError) as error:
        print(f"configuration: {type(error).__name__}: {error}", file=sys.stderr)
        return exit_codes.BAD_INPUT
    policy = Policy(run.nodes.count, run.nodes.spares, lease_seconds=options.lease_seconds)
    identity = Identity(run.run, attempt, run.training.steps, uuid.uuid4().hex)
    store = start_store(options.store_port)
    serve(Coordinator(ledger.opened(identity, policy, time.time())), options.http_port)
    del store  # it serves from a thread of its own for as long as it is referenced
    return exit_codes.OK


def start_store(port: int) -> object:
    """torch's key-value store, over which a round's workers find each other."""
    from torch.distributed import TCPStore  # slow, and only wanted here

    return TCPStore(
        "0.0.0.0",  # noqa: S104  a pod serves its network
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=STORE_TIMEOUT,
    )


def serve(coordinator: Coordinator, port: int) -> None:
    server = Server(port, coordinator)

    def stop(_signum: int, _frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=coordinator.run_clock, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
