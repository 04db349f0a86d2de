"""One rank of one of the two systems, in blocks of steps.

    a line on stdin    -> a block is trained; its seconds are a line of JSON on stdout
    the end of stdin   -> what else there is to say, a line of JSON, and the end

The task is the first line on stdin. RANK and its kin come from the environment, as a worker's.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pretrain_llm.contract import codec
from pretrain_llm.contract.config import RunConfig

OURS, BARE = "ours", "bare"


@dataclass(frozen=True)
class Task:
    system: str
    run: RunConfig
    folder: str  # of the shards
    block_steps: int
    save_steps: int | None = None  # between two saves; ours only
    saves_async: bool = True


def main() -> None:
    task = codec.from_json(Task, sys.stdin.readline())
    logging.basicConfig(level=logging.ERROR)
    if task.run.nodes.device == "cpu":
        from pretrain_llm.training import on_cpu  # noqa: F401  before torchtitan
    from pretrain_llm.training import cpu

    if task.run.nodes.device == "cpu":
        cpu.use_threads()
    _trainer(task).train()


def _trainer(task: Task) -> Any:
    from . import trainers

    config = trainers.config(task)
    kind = trainers.Ours if task.system == OURS else trainers.Bare
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    trainer = kind.Config(**values).build()
    trainer.turns = Turns(task.block_steps, trainer)
    return trainer


class Turns:
    """Called at every step boundary."""

    def __init__(self, block_steps: int, trainer: Any) -> None:
        self._block_steps, self._trainer = block_steps, trainer
        self._begun = time.perf_counter()

    def boundary(self, step: int) -> None:
        if step % self._block_steps:
            return
        from torchtitan.tools import utils

        utils.device_module.synchronize()
        _say({"step": step, "seconds": time.perf_counter() - self._begun})
        if not sys.stdin.readline():
            _say(self._found())
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


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def write_shards(folder: Path, vocabulary: int, tokens: int) -> None:
    """Documents of 500 tokens, each closed by token 0."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(0).integers(1, vocabulary, tokens)
    drawn[499::500] = 0
    drawn.astype("<u2").tofile(folder / "0.bin")


if __name__ == "__main__":
    main()
