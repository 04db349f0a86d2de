"""torchtitan's checkpoint manager, with manifests: loads only what verifies, keeps what is proven.

Saving and loading stay torchtitan's (DCP, asynchronous). Its own purge is off (`keep_latest_k=0`):
it counts folders, ours counts verified checkpoints, and two purges would race.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torchtitan.components.checkpoint import DATALOADER, MODEL, OPTIMIZER, CheckpointManager

from ..checkpoints.restoring import agreed_skips, newest_listed, newest_verified
from ..checkpoints.sealing import Save, Sealer
from ..checkpoints.selection import Identity
from ..contract.config import CheckpointConfig
from ..contract.curriculum import Segment
from ..contract.data_steps import SkippedData
from ..contract.reports import PERSISTENT, SCRATCH, QuarantinedReport, SavedReport, SavingReport
from .memory import MemoryTier
from .reporting import report


class VerifiedCheckpoints(CheckpointManager):
    """The hooks of torchtitan's manager that see a load, a save and the end."""

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        identity: Identity
        policy: CheckpointConfig
        mesh: tuple[int, ...]  # degrees: only the same one reads what is in memory
        segment: Segment  # of the curriculum: the only one this process trains

    def __init__(self, config: Config, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self._identity, self._policy = config.identity, config.policy
        self._group = self.pg or dist.new_group(backend="gloo")  # none where saves wait
        self._at_step: int | None = None  # the state is of, and the volume has it
        self._saved_step = 0  # newest on the volume: from there auto counts
        self._interval = config.policy.min_interval  # with auto, until another is agreed on
        self.restored_from = SCRATCH
        self._memory: MemoryTier | None = None
        if memory := config.policy.memory:
            self._memory = MemoryTier(memory.interval, config.identity, config.mesh)
        self._sealer = Sealer(
            Path(self.folder),
            config.identity,
            config.policy,
            {name: version(name) for name in ("torch", "torchtitan")},
            config.segment.consumed,
            self._group,
            _report_saved,
        )

    def _load(self, step: int = -1) -> bool:  # noqa: ARG002  the newest, always
        skipped = agreed_skips(Path(self.folder), self._group)
        self._sealer.skipped = skipped
        self.states[DATALOADER].skip(skipped)
        return self._load_memory(skipped) or self._load_verified(skipped)

    def _load_memory(self, skipped: SkippedData) -> bool:
        """Not verified on the volume: what is there stays the truth, but this is newer."""
        if self._memory is None:
            return False
        self._memory.skipped = skipped
        self._saved_step = newest_listed(Path(self.folder), self._group)
        if not self._memory.can_load(self._saved_step, self._policy.keeps):
            return False
        states = self._states_to_load(model_only=False)
        self._memory.load(states)
        self.states[MODEL].load_state_dict(states)  # as torchtitan does after DCP's load
        self.restored_from = self._memory.source
        if self._memory.loaded_step == self._saved_step:
            self._at_step = self._saved_step  # to save it again would write over what is proven
        return True

    def _load_verified(self, skipped: SkippedData) -> bool:
        manifest = newest_verified(
            Path(self.folder), self._identity, skipped, self._group, _report_quarantined
        )
        if manifest is None:
            self._saved_step = 0
            return False
        self._at_step = self._saved_step = manifest.step
        self.restored_from = PERSISTENT
        return super()._load(manifest.step)

    def _save(self, curr_step: int, last_step: bool = False) -> bool:
        if self._memory and not last_step:  # the last step must be on the volume, and is
            # First: a copy is made sooner, and a fault meanwhile does not cost this step.
            self._memory.at_boundary(curr_step, self._flattened_model_states_sd)
        is_saved = self._save_verified(curr_step, last_step)
        if is_saved and not last_step and dist.get_rank() == 0:
            report(saving=SavingReport(curr_step, time.time(), over=True))
        return is_saved

    def _save_verified(self, curr_step: int, last_step: bool) -> bool:
        if curr_step == self._at_step:  # asked to stop at a step that is saved already
            return False
        if not self._should_save(curr_step, last_step):
            return False
        if dist.get_rank() == 0:
            report(saving=SavingReport(curr_step, time.time()))
        begun = time.monotonic()
        self._sealer.drain()  # it uses the group in which DCP's ranks talk about the next save
        if curr_step == 0 and self._policy.keeps(0):
            _make_state(self.states[OPTIMIZER])
        super()._save(curr_step, last_step)
        self._at_step = self._saved_step = curr_step
        stall_seconds = time.monotonic() - begun
        self._sealer.submit(Save(curr_step, self.save_future, begun, stall_seconds))
        return True

    def _should_save(self, curr_step: int, last_step: bool = False) -> bool:
        if curr_step == 0:  # nothing is trained: only where the user wants the first weights
            return self._policy.keeps(0)
        return last_step or self._policy.keeps(curr_step) or self._is_due(curr_step)

    def _is_due(self, step: int) -> bool:
        if self._policy.interval is not None:
            return step % self._policy.interval == 0
        return step - self._saved_step >= self._interval

    def pace(self, interval: int) -> None:
        """All ranks have agreed on so many steps between two saves; 0: on none yet."""
        if interval:
            self._interval = interval

    def __del__(self) -> None:
        """Nothing: the parent closes here, and after an error that would wait for dead peers."""

    def _close(self) -> None:
        super()._close()
        self._sealer.drain()


def _make_state(optimizers: Any) -> None:
    """Moments of zero, and no step made.

    torch makes a missing state with an empty step of its own, which would count in AdamW's bias
    correction: the first weights could not be saved without changing all losses after.
    """
    optimizers.state_dict()
    optimizers.forget()


def _report_saved(saved: SavedReport) -> None:
    report(saved=saved)


def _report_quarantined(step: int, reason: str, path: Path) -> None:
    report(quarantined=QuarantinedReport(step, reason, str(path), time.time()))
