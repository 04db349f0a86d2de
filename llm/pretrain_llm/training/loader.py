"""The packed samples of this rank, a step ahead of the training.

Which samples come next is a pure function of the step (`data.packed`), so a thread reads those of
the next step while the device computes: a step waits for nothing but its first batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torchtitan.components.dataloader import BaseDataLoader

from ..contract.curriculum import Segment
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
        segment: Segment

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
        self._segment, self._eos_id = config.segment, config.index.eos_id
        self._rank, self._ranks, self._at_once = dp_rank, dp_world_size, local_batch_size
        self._steps = 0  # whose samples were handed out
        self.skipped = SkippedData()

    def skip(self, skipped: SkippedData) -> None:
        """Before the first batch: data steps that are never handed out."""
        self.skipped = skipped

    def __iter__(self) -> Iterator[Batch]:
        """Yields ({input, positions}, labels), each (local batch, sequence) int64, for ever."""
        ahead: deque[tuple[int, Future[Batch]]] = deque()
        with ThreadPoolExecutor(1, "loader") as reader:
            for step, positions in self._micro_batches(self._steps):
                ahead.append((step, reader.submit(self._batch, positions)))
                if step > ahead[0][0]:  # all of the one that is handed out, one of the next
                    self._steps, batch = ahead.popleft()
                    yield batch.result()

    def _micro_batches(self, steps: int) -> Iterator[tuple[int, range]]:
        """The number of each step after `steps` with the positions of a local batch, for ever."""
        while True:
            positions = batch_samples(
                self._segment.order_position(self.skipped.data_step(steps)),
                global_batch_size=self._segment.run.training.global_batch_size,
                dp_rank=self._rank,
                dp_size=self._ranks,
            )
            steps += 1
            for start in range(0, len(positions), self._at_once):
                yield steps, positions[start : start + self._at_once]

    def _batch(self, positions: range) -> Batch:
        tokens = torch.from_numpy(self._dataset.samples(positions))
        inputs, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
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
