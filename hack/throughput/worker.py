"""One rank of one of the two systems, in blocks of steps; a process of the fork server.

True comes   -> a block is trained; its seconds are sent
False comes  -> what else there is to say is sent, and the process ends
"""

from __future__ import annotations

import logging
import mmap
import os
import random
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pretrain_llm.contract.config import RunConfig

OURS, BARE = "ours", "bare"
_PADS, _MAX_PAD_BYTES, _MAX_BLOCK_BYTES = 64, 1 << 22, 1 << 16


@dataclass(frozen=True)
class Task:
    system: str
    run: RunConfig
    folder: str  # of the shards
    block_steps: int
    save_steps: int | None = None  # between two saves; ours only
    saves_async: bool = True


def main(task: Task, own: Mapping[str, str], line: Connection) -> None:
    """`own`: environment."""
    os.environ.update(own)
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.ERROR)
    from pretrain_llm.training import cpu

    if task.run.nodes.device == "cpu":
        cpu.use_threads()
    held = _pads(random.Random())
    _trainer(task, line).train()
    del held


def _pads(draw: random.Random) -> list[mmap.mmap | bytes]:
    """Memory that nobody uses, with holes of other sizes each time.

    One program has one layout, good or bad for the caches, and forks have it at each start: what
    is measured would be that, too.
    """
    maps = [mmap.mmap(-1, draw.randrange(1, _MAX_PAD_BYTES)) for _ in range(_PADS)]
    blocks = [bytes(draw.randrange(1, _MAX_BLOCK_BYTES)) for _ in range(_PADS)]
    return draw.sample([*maps, *blocks], _PADS)


def _trainer(task: Task, line: Connection) -> Any:
    from . import trainers

    config = trainers.config(task)
    kind = trainers.Ours if task.system == OURS else trainers.Bare
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    trainer = kind.Config(**values).build()
    trainer.turns = Turns(task.block_steps, trainer, line)
    return trainer


class Turns:
    """Called at every step boundary."""

    def __init__(self, block_steps: int, trainer: Any, line: Connection) -> None:
        self._block_steps, self._trainer, self._line = block_steps, trainer, line
        self._begun = time.perf_counter()

    def boundary(self, step: int) -> None:
        if step % self._block_steps:
            return
        from torchtitan.tools import utils

        utils.device_module.synchronize()
        self._line.send({"seconds": time.perf_counter() - self._begun})
        if not self._line.recv():
            self._line.send(self._found())
            os._exit(0)
        self._begun = time.perf_counter()

    def _found(self) -> dict[str, Any]:
        import torch

        processor = self._trainer.metrics_processor
        is_cuda = torch.cuda.is_available()
        return {
            "flopsPerToken": processor.num_flops_per_token,
            "device": torch.cuda.get_device_name() if is_cuda else "CPU",
            "peakFlops": processor.gpu_peak_flops if is_cuda else None,
            "peakBytes": torch.cuda.max_memory_allocated() if is_cuda else None,
        }


def write_shards(folder: Path, vocabulary: int, tokens: int) -> None:
    """Documents of 500 tokens, each closed by token 0."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(0).integers(1, vocabulary, tokens)
    drawn[499::500] = 0
    drawn.astype("<u2").tofile(folder / "0.bin")
