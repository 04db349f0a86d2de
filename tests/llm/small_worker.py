"""A real torch worker, small enough to run three times on two cores: gloo, steps, checkpoints.

Its state is one number; its loss depends on the step alone, so replayed steps must agree. It is
steered by files in its folder, so that tests need no clock: `finish` ends it at the next step,
`bad-input` makes it refuse its input, and `deaf` leaves SIGTERM to the kernel. Faults are injected
into it as into a real one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from pretrain_llm import reports
from pretrain_llm.contract import environment, exit_codes
from pretrain_llm.contract.reports import (
    RestoredReport,
    SavedReport,
    SavingReport,
    StepReport,
    WorkerReport,
)
from pretrain_llm.errors import InputError
from pretrain_llm.faults import hook

FOLDER = "SMALL_WORKER_FOLDER"
STEP_SECONDS = 0.04  # 25 steps last two reports of the agent: one falls between two saves
CHECKPOINT_INTERVAL = 25


class SmallWorker:
    def __init__(self) -> None:
        self.folder = Path(os.environ[FOLDER])
        self.round = int(os.environ[environment.ROUND])
        self.rank = int(os.environ["RANK"])
        self.is_asked_to_stop = False
        self.step = self.restored_step()
        self.faults = hook.hook(lambda _factor: None)

    def restored_step(self) -> int:
        saved = self.folder / "checkpoint"
        return int(saved.read_text()) if saved.exists() else 0

    def report(self, **told: object) -> None:
        reports.send(WorkerReport(self.rank, self.round, **told))

    def save(self) -> None:
        if self.rank == 0:
            self.report(saving=SavingReport(self.step, time.time()))
            part = self.folder / "checkpoint.part"
            part.write_text(str(self.step))
            part.replace(self.folder / "checkpoint")
            self.report(saving=SavingReport(self.step, time.time(), over=True))
            self.report(saved=SavedReport(self.step, "checkpoint", 1, time.time(), 0.0))
        dist.barrier()

    def agreed(self, wish: bool) -> bool:
        """Whether any rank wishes it: the same answer on every rank."""
        wishes = torch.tensor([float(wish)])
        dist.all_reduce(wishes)
        return bool(wishes.item())

    def train_step(self) -> None:
        started = time.time()
        if self.faults is not None:
            self.faults.boundary()
        time.sleep(STEP_SECONDS)
        ranks = torch.tensor([1.0])
        dist.all_reduce(ranks)
        self.step += 1
        if self.rank == 0:
            now = time.time()
            loss = 10.0 / (1.0 + self.step) * ranks.item() / dist.get_world_size()
            self.report(step=StepReport(self.step, loss, self.step, now - started, 1.0, now))

    def run(self) -> int:
        if not (self.folder / "deaf").exists():
            signal.signal(signal.SIGTERM, lambda *_: setattr(self, "is_asked_to_stop", True))
        if (self.folder / "bad-input").exists():
            raise InputError("no such file", field="spec.data", value="x", remedy="Make it.")
        dist.init_process_group("gloo")
        dist.barrier()
        print(f"round {self.round} rank {self.rank} from step {self.step}", flush=True)
        self.report(restored=RestoredReport(self.step, time.time()))
        while not self.agreed((self.folder / "finish").exists()):
            self.train_step()
            if self.step % CHECKPOINT_INTERVAL == 0:
                self.save()
            if self.agreed(self.is_asked_to_stop):
                self.save()
                return exit_codes.SAVED
        return exit_codes.OK


def main() -> None:
    sys.exit(SmallWorker().run())
