"""The real worker with data that makes its loss go wrong: only the batches themselves do, wherever
and whenever they are trained, so that skipping them is the cure.

POISON is a JSON object of data steps and what their loss is multiplied by; NaN is a number there.
Each rank appends a line for every batch that it trains: round, step, data step. SLOW is a JSON
object of ranks and the seconds that each of their attentions takes longer.
"""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

from pretrain_llm.contract import environment

POISON = "TEST_POISON"
SLOW = "TEST_SLOW"
TRAINED = "TEST_TRAINED"  # a folder; a file of lines for each rank


def main() -> None:
    from pretrain_llm.training import worker  # a worker has its configuration by now

    if POISON in os.environ:
        _poison()
    if SLOW in os.environ:
        _slow_down(json.loads(os.environ[SLOW]).get(os.environ["RANK"], 0.0))
    worker.main()


def _slow_down(seconds: float) -> None:
    from pretrain_llm.training import cpu

    attention = cpu._attention_class()
    original = attention.forward

    @functools.wraps(original)  # torchtitan binds the names of its arguments
    def forward(self: Any, *inputs: Any, **named: Any) -> Any:
        time.sleep(seconds)
        return original(self, *inputs, **named)

    attention.forward = forward


def _poison() -> None:
    from pretrain_llm.training import titan
    from pretrain_llm.training.loader import PackedLoader

    factors = {int(step): float(by) for step, by in json.loads(os.environ[POISON]).items()}
    trained = Path(os.environ[TRAINED]) / f"rank-{os.environ['RANK']}"
    original_batch = PackedLoader._batch
    original_step = titan.Trainer.forward_backward_step
    data_steps: dict[bytes, int] = {}  # by a batch's labels; it is read a step ahead

    def read_batch(self: PackedLoader, positions: range) -> Any:
        inputs, labels = original_batch(self, positions)
        size = self._segment.run.training.global_batch_size
        data_steps[labels.numpy().tobytes()] = positions[0] // size
        return inputs, labels

    def forward_backward_step(self: titan.Trainer, **batch: Any) -> Any:
        data_step = data_steps[batch["labels"].numpy().tobytes()]
        with trained.open("a") as file:
            number = os.environ.get(environment.ROUND, "0")
            file.write(f"{number} {self.step} {data_step}\n")
        return original_step(self, **batch) * factors.get(data_step, 1.0)

    PackedLoader._batch = read_batch
    titan.Trainer.forward_backward_step = forward_backward_step


def batches(folder: Path, rank: int = 0) -> dict[int, int]:
    """Data step by step, as trained last."""
    lines = (folder / f"rank-{rank}").read_text().splitlines()
    return {int(step): int(data) for _, step, data in (line.split() for line in lines)}
