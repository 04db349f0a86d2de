"""The real worker, which also writes down each step's exact loss and the samples it was made from:
those that were handed out for it, not those that were read ahead.

<folder>/record-<rank>.jsonl has a line a step: {"round", "step", "loss", "samples"}. A step that
was run again has a line of each round that ran it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pretrain_llm.contract import environment

from . import small_worker


def record_path(folder: Path, rank: int) -> Path:
    return folder / f"record-{rank}.jsonl"


def main() -> None:
    from pretrain_llm.training import loader, titan, worker  # a worker has its configuration by now

    path = record_path(Path(os.environ[small_worker.FOLDER]), int(os.environ["RANK"]))
    read: dict[int, range] = {}  # positions by the identity of their batch
    handed_out: list[int] = []
    batch_of, batches = loader.PackedLoader._batch, loader.PackedLoader.__iter__
    log = titan.Metrics.log

    def recorded_batch(self: Any, positions: range) -> Any:
        batch = batch_of(self, positions)
        read[id(batch)] = positions
        return batch

    def recorded_batches(self: Any) -> Any:
        for batch in batches(self):
            handed_out.extend(read.pop(id(batch)))
            yield batch

    def recorded_log(self: Any, step: int, loss: float, *rest: Any, **more: Any) -> None:
        number = int(os.environ.get(environment.ROUND, "0"))
        line = {"round": number, "step": step, "loss": loss.hex(), "samples": list(handed_out)}
        handed_out.clear()
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        log(self, step, loss, *rest, **more)

    loader.PackedLoader._batch = recorded_batch
    loader.PackedLoader.__iter__ = recorded_batches
    titan.Metrics.log = recorded_log
    worker.main()
