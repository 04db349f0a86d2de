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
from types import FrameType

from ..contract import codec, config, curriculum, environment, exit_codes, meshes
from . import cadence, ledger
from .ledger import Identity
from .rollbacks import LossPolicy
from .rounds import Policy
from .server import Coordinator, Server
from .stalls import Patience
from .stragglers import StragglerPolicy


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pretrain_llm.coordinator", description=__doc__)
    parser.add_argument("--http-port", type=int, default=environment.COORDINATOR_HTTP_PORT)
    parser.add_argument("--store-port", type=int, default=environment.STORE_PORT)
    parser.add_argument("--lease-seconds", type=float, default=Policy.lease_seconds)
    parser.add_argument("--shrink-after-seconds", type=float, default=Policy.shrink_after_seconds)
    parser.add_argument("--stall-factor", type=float, default=Patience.factor)
    parser.add_argument("--stall-floor-seconds", type=float, default=Patience.floor_seconds)
    parser.add_argument("--stall-quiet-seconds", type=float, default=Patience.quiet_seconds)
    parser.add_argument("--spike-factor", type=float, default=LossPolicy.spike_factor)
    parser.add_argument("--spike-window-steps", type=int, default=LossPolicy.window_steps)
    parser.add_argument("--spike-steps", type=int, default=LossPolicy.spike_steps)
    parser.add_argument("--skip-steps", type=int, default=LossPolicy.skip_steps)
    parser.add_argument("--max-rollbacks", type=int, default=LossPolicy.max_rollbacks)
    parser.add_argument("--straggler-z-score", type=float, default=StragglerPolicy.z_score)
    parser.add_argument("--straggler-window-steps", type=int, default=StragglerPolicy.window_steps)
    return parser.parse_args(argv)


def main() -> int:
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        run = config.load_any(os.environ.get(environment.CONFIG, environment.CONFIG_PATH))
        attempt = int(os.environ[environment.ATTEMPT])
    except (OSError, codec.DecodeError, KeyError, ValueError) as error:
        print(f"configuration: {type(error).__name__}: {error}", file=sys.stderr)
        return exit_codes.BAD_INPUT
    patience = Patience(
        options.stall_factor, options.stall_floor_seconds, options.stall_quiet_seconds
    )
    policy = Policy(
        run.nodes.count,
        run.nodes.spares,
        lease_seconds=options.lease_seconds,
        patience=patience,
        fewer_nodes=meshes.fewer_nodes(run),
        shrink_after_seconds=options.shrink_after_seconds,
        boundaries=curriculum.boundaries(run),
    )
    identity = Identity(run.run, attempt, run.total_steps, uuid.uuid4().hex)
    from .store import RoundStore  # imports torch, which takes seconds: not before a wrong start

    devices = run.nodes.count * run.nodes.devices_per_node
    rhythm = cadence.initial(run.checkpoint, devices)
    loss_policy = LossPolicy(
        options.spike_factor,
        options.spike_window_steps,
        options.spike_steps,
        options.skip_steps,
        options.max_rollbacks,
    )
    straggler_policy = StragglerPolicy(options.straggler_z_score, options.straggler_window_steps)
    opened = ledger.opened(
        identity, policy, time.time(), rhythm, loss_policy, straggler_policy=straggler_policy
    )
    serve(Coordinator(opened, RoundStore(options.store_port).renew), options.http_port)
    return exit_codes.OK


def serve(coordinator: Coordinator, port: int) -> None:
    server = Server(port, coordinator)

    def stop(_signum: int, _frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=run_clock, args=(coordinator,), daemon=True).start()
    server.serve_forever()


def run_clock(coordinator: Coordinator) -> None:
    """Ticks for ever. Without its clock a coordinator is no use: the pod starts a new one."""
    try:
        coordinator.run_clock()
    except Exception:
        logging.exception("the clock stopped")
        os._exit(exit_codes.ERROR)


if __name__ == "__main__":
    sys.exit(main())
