"""The two trainers, and the plain torchtitan configuration that says the same as ours.

Imported once the device is chosen. Everything that shapes the computation is taken from our
configuration: model, parallelisation, loss, optimizer groups, schedule, clipping, precision, also
that the loss is logged at every step and that asynchronous checkpoints are on, though none is due.
What is ours alone is left out: verified checkpoints, agreement between ranks, reports, the loader
that resumes anywhere and reads ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchtitan.trainer
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer

from pretrain_llm.data.index import Shard, ShardIndex
from pretrain_llm.training import titan
from pretrain_llm.training.documents import document_positions
from pretrain_llm.training.dry_run import NoTokenizer
from pretrain_llm.training.inputs import Inputs

from .worker import BARE, Task, Turns


class Ours(titan.Trainer):
    turns: Turns

    @dataclass(kw_only=True, slots=True)
    class Config(titan.Trainer.Config):
        pass

    def should_continue_training(self) -> bool:
        goes_on = super().should_continue_training()
        self.turns.boundary(self.step)
        return goes_on


class Bare(torchtitan.trainer.Trainer):
    turns: Turns

    @dataclass(kw_only=True, slots=True)
    class Config(torchtitan.trainer.Trainer.Config):
        pass

    def should_continue_training(self) -> bool:
        goes_on = super().should_continue_training()
        self.turns.boundary(self.step)
        return goes_on


def config(task: Task) -> Any:
    ours = titan.trainer_config(task.run, inputs(Path(task.folder)))
    ours.tokenizer = NoTokenizer.Config()
    if not task.saves_async:
        ours.checkpoint = replace(ours.checkpoint, async_mode="disabled")
    if task.save_steps:
        policy = replace(ours.checkpoint.policy, interval=task.save_steps)
        ours.checkpoint = replace(ours.checkpoint, policy=policy)
    return _bare(ours, task) if task.system == BARE else ours


def inputs(folder: Path) -> Inputs:
    tokens = (folder / "0.bin").stat().st_size // 2
    index = ShardIndex(2, 0, 0, "", (Shard("0.bin", tokens),), (), 0)
    return Inputs(folder, index, Path(), "")


def _bare(ours: titan.Trainer.Config, task: Task) -> Any:
    plain = torchtitan.trainer.Trainer.Config
    values = {field.name: getattr(ours, field.name) for field in fields(plain)}
    return plain(
        **{
            **values,
            "optimizer": _as(OptimizersContainer.Config, ours.optimizer),
            "lr_scheduler": _as(LRSchedulersContainer.Config, ours.lr_scheduler),
            "metrics": _as(MetricsProcessor.Config, ours.metrics),
            "dataloader": PlainLoader.Config(folder=task.folder),
            "checkpoint": replace(
                _as(CheckpointManager.Config, ours.checkpoint), interval=task.run.training.steps
            ),
        }
    )


def _as(kind: Any, value: Any) -> Any:
    """The parent's part of one of our configurations."""
    return kind(**{field.name: getattr(value, field.name) for field in fields(kind) if field.init})


class PlainLoader(BaseDataLoader):
    """One memory-mapped file from its beginning to its end, a slice a rank, read when asked for."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        folder: str

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        seq_len: int,
        local_batch_size: int,
        **_: Any,
    ) -> None:
        self._tokens = np.memmap(Path(config.folder) / "0.bin", "<u2", mode="r")
        self._shape = (local_batch_size, seq_len)
        self._next, self._stride = dp_rank, dp_world_size

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        count = self._shape[0] * self._shape[1]
        while True:
            start = self._next * count % (len(self._tokens) - count - 1)
            self._next += self._stride
            read = torch.from_numpy(self._tokens[start : start + count + 1].astype(np.int64))
            inputs, labels = read[:-1].view(self._shape), read[1:].view(self._shape)
            yield {"input": inputs, "positions": document_positions(inputs, 0)}, labels

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...
