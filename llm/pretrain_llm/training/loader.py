"""The packed samples of this rank, a step ahead of the training.

Which samples come next is a pure function of the step (`data.packed`), so a thread reads those of
the next step while the device computes: a step waits for nothing but its first batch, and takes
it from a queue in microseconds.

    batch taken ── forward ── read_on ── backward ── optimizer ── next batch taken
                                 └── the thread reads: the backward pass leaves Python's lock alone
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torchtitan.components.dataloader import BaseDataLoader

from ..contract.curriculum import Segment
from ..contract.data_order import DataOrder
from ..contract.data_steps import SkippedData
from ..data.index import ShardIndex
from ..data.packed import PackedDataset, batch_samples, order_seed
from ..errors import InputError
from .documents import document_positions

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


class SegmentError(RuntimeError):
    """The next round knows better: what could not be loaded is set aside, or not offered again."""


def check_has_next(segment: Segment, finished_steps: int) -> None:
    """Raises SegmentError: the newest checkpoint could not be loaded, and the one that could is of
    another segment."""
    if not segment.has_next(finished_steps):
        steps = f"{segment.start + 1} to {segment.end}"
        raise SegmentError(f"built for steps {steps}, but step {finished_steps} was restored")


class PackedLoader(BaseDataLoader):
    """Micro-batches of this rank; its state is how many samples the world has consumed.

    With the data steps that are skipped, that says which come next.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        folder: str
        index: ShardIndex
        segments: tuple[Segment, ...]  # all of the run's
        segment: Segment  # that this process trains

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
        self._dataset = PackedDataset(
            Path(config.folder),
            config.index,
            sequence_length=seq_len,
            seed=order_seed(config.segment.run.training.seed, config.segment.order),
            weights=config.segment.run.data.weights,
        )
        self._segments, self._segment = config.segments, config.segment
        self._eos_id = config.index.eos_id
        self._rank, self._ranks, self._local_batch = dp_rank, dp_world_size, local_batch_size
        a_step = config.segment.run.training.global_batch_size // dp_world_size
        self._at_once = a_step // local_batch_size  # batches of a step
        self._steps = 0  # whose samples were handed out
        self._asked: SimpleQueue[int] = SimpleQueue()
        self._ahead = 0  # batches that the thread was asked for, and nobody has taken
        self._owed = 0  # that it is to be asked for, one for each taken
        self.skipped = SkippedData()

    def skip(self, skipped: SkippedData) -> None:
        """Before the first batch: data steps that are never handed out."""
        self.skipped = skipped

    def __iter__(self) -> Iterator[Batch]:
        """Yields ({input, positions}, labels), each (local batch, sequence) int64, for ever."""
        asked: SimpleQueue[int] = SimpleQueue()
        self._asked, self._ahead, self._owed = asked, 0, self._at_once
        read: SimpleQueue[tuple[int, Batch] | Exception] = SimpleQueue()
        reader = threading.Thread(target=self._read, args=(asked, read), name="loader", daemon=True)
        reader.start()
        try:
            while True:
                if not self._ahead:
                    self.read_on()
                self._ahead, self._owed = self._ahead - 1, self._owed + 1
                yield self._taken(read)
        finally:
            asked.put(0)

    def read_on(self) -> None:
        """Has the thread read as much as was taken. Whoever never calls this waits for each step's
        first batch while it is read.
        """
        if self._owed:
            self._asked.put(self._owed)
            self._ahead, self._owed = self._ahead + self._owed, 0

    def _taken(self, read: SimpleQueue[tuple[int, Batch] | Exception]) -> Batch:
        """The next; `__iter__` must not hold it: to free it takes longer than to take it."""
        taken = read.get()
        if isinstance(taken, Exception):
            raise taken
        self._steps, batch = taken
        return batch

    def _read(
        self, asked: SimpleQueue[int], read: SimpleQueue[tuple[int, Batch] | Exception]
    ) -> None:
        """As many batches as are asked for; 0 ends it."""
        try:
            micro_batches = self._micro_batches(self._steps)
            while count := asked.get():
                for step, positions in itertools.islice(micro_batches, count):
                    read.put((step, self._batch(positions)))
        except Exception as error:  # the step that asks for it fails of it
            read.put(error)

    def _micro_batches(self, steps: int) -> Iterator[tuple[int, range]]:
        """The number of each step after `steps` with the positions of a local batch, for ever."""
        order = DataOrder(self._segments, self.skipped)
        while True:
            positions = batch_samples(
                order.first_sample(self._segment, steps),
                global_batch_size=self._segment.run.training.global_batch_size,
                dp_rank=self._rank,
                dp_size=self._ranks,
            )
            steps += 1
            for start in range(0, len(positions), self._local_batch):
                yield steps, positions[start : start + self._local_batch]

    def _batch(self, positions: range) -> Batch:
        """By numpy, for the sake of torch's threads: they train meanwhile."""
        tokens = self._dataset.samples(positions)
        inputs, labels = (
            torch.from_numpy(np.ascontiguousarray(part)) for part in (tokens[:, :-1], tokens[:, 1:])
        )
        return {"input": inputs, "positions": document_positions(inputs, self._eos_id)}, labels

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, **asdict(self._segment.consumed(self._steps))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises InputError where the samples are not the ones that were consumed, SegmentError."""
        if not state_dict:
            return
        self._steps = state_dict["steps"]
        check_has_next(self._segment, self._steps)
        ours, training = self._segment.consumed(self._steps), self._segment.run.training
        for name, field, value in (
            ("samples", "globalBatchSize", training.global_batch_size),
            ("tokens", "sequenceLength", training.sequence_length),
        ):
            if (saved := state_dict[name]) != (wanted := getattr(ours, name)):
                raise InputError(
                    f"the checkpoint of step {self._steps} was trained on {saved} {name}, "
                    f"not the {wanted} of this spec and its curriculum",
                    field=f"spec.training.{field}",
                    value=value,
                    remedy="Start a run under another name, or make this one anew "
                    f"with the {field} that the checkpoint was trained with.",
                )
