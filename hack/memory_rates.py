"""How fast a node's checkpoints in memory are: `make bench-memory`. Prints MB/s, medians.

One worker's shard in /dev/shm, an agent that hashes and sends it, another process that verifies it,
over loopback: the network is left out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch

from pretrain_llm import artifacts
from pretrain_llm.agent.peers import Peer, Server
from pretrain_llm.checkpoints import generations
from pretrain_llm.contract.memory import Generation
from pretrain_llm.training import memory

TOKEN = "measured"
TENSORS = 16


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hack.memory_rates", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024, help="of the shard (1024)")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    elements = options.megabytes * 1_000_000 // (4 * TENSORS)
    states = {f"tensor{number}": torch.randn(elements) for number in range(TENSORS)}
    found = [rates(states, 4 * TENSORS * elements) for _ in range(options.repetitions)]
    for name in found[0]:
        print(f"{name}: {median(rate[name] for rate in found):,.0f} MB/s")


def rates(states: memory.States, size: int) -> dict[str, float]:
    """Each in MB/s: the worker's write, the agent's hash and transfer, the worker's restore."""
    generation = Generation(1, 1)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        mine, peers = Path(folder, "mine"), Path(folder, "peers")
        place = generations.folder(mine, generation, 0)
        place.mkdir(parents=True)
        peers.mkdir()
        written = _seconds(lambda: memory.write(place, 0, states, {}, 1))
        copied = _seconds(lambda: _copy(mine, peers, generation))
        shards = generations.read_shards(mine, generation, 0)
        assert shards

        def load() -> None:
            assert not artifacts.mismatches(place, shards.files)
            memory.read(place, 0, states)

        loaded = _seconds(load)
    parts = {"written by a worker": written, "copied to a peer": copied, "loaded": loaded}
    return {name: size / seconds / 1e6 for name, seconds in parts.items()}


def _copy(mine: Path, peers: Path, generation: Generation) -> None:
    """Its start of a process is some hundredths of a second."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(peers, there), daemon=True)
    process.start()
    try:
        with Peer(f"127.0.0.1:{here.recv()}", TOKEN) as peer:
            peer.send(mine, generations.seal(mine, generation, 0, nodes=2))
    finally:
        process.kill()
        process.join()


def _serve(root: Path, told: Connection) -> None:
    server = Server(0, root, TOKEN, lambda _: True, lambda _: None)
    told.send(server.server_port)
    server.serve_forever()


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
