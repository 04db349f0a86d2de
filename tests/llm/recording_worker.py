"""The real worker, which also writes down each step's exact loss and the samples it was made from.

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
    from pretrain_llm.training import titan, worker  # a worker has its configuration by now

    path = record_path(Path(os.environ[small_worker.FOLDER]), int(os.environ["RANK"]))
    read: list[int] = []
    sample, log = titan.PackedDataset.sample, titan.Metrics.log

    def recorded_sample(self: Any, position: int) -> Any:
        read.append(position)
        return sample(self, position)

    def recorded_log(self: Any, step: int, loss: float, *rest: Any, **more: Any) -> None:
        number = int(os.environ.get(environment.ROUND, "0"))
        line = {"round": number, "step": step, "loss": loss.hex(), "samples": list(read)}
        read.clear()
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        log(self, step, loss, *rest, **more)

    titan.PackedDataset.sample = recorded_sample
    titan.Metrics.log = recorded_log
    worker.main()
