"""A worker's shard in memory: what comes back is what was there, or nothing is touched."""

from __future__ import annotations

import logging
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.stateful import Stateful
from torchtitan.components.checkpoint import MODEL, CheckpointManager

from pretrain_llm.checkpoints import generations
from pretrain_llm.checkpoints.selection import Identity
from pretrain_llm.contract import environment
from pretrain_llm.contract.config import CheckpointConfig
from pretrain_llm.contract.data_steps import DataSteps, SkippedData
from pretrain_llm.contract.memory import Generation
from pretrain_llm.training import checkpointing, memory
from pretrain_llm.training.checkpointing import VerifiedCheckpoints
from pretrain_llm.training.memory import MemoryTier, ShardMismatchError

AT = Generation(3, 20)
IDENTITY = Identity("m", "t", "d", "c", world_size=1)


class Optimizer(Stateful):
    """Hands out its own tensors, and is told of values."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.moment, self.rate, self.betas = torch.randn(3, 5), 0.1 / (seed + 1), (0.9, 0.1 * seed)

    def state_dict(self) -> dict[str, Any]:
        return {"moment": self.moment, "groups": [{"rate": self.rate, "betas": self.betas}]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rate, self.betas = (state_dict["groups"][0][name] for name in ("rate", "betas"))


def states(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    return {
        "weight": torch.randn(4, 6).t(),  # not contiguous
        "half": torch.randn(7, dtype=torch.bfloat16),
        "count": torch.tensor(seed),
        "optimizer": Optimizer(seed),
        "epoch": seed,
        "nothing": None,
    }


def flat(found: dict[str, Any]) -> list[Any]:
    values = [found["weight"], found["half"], found["count"], found["optimizer"].moment]
    optimizer = found["optimizer"]
    return [*(value.tolist() for value in values), optimizer.rate, optimizer.betas, found["epoch"]]


def test_shard_read_back_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    saved, loaded = states(1), states(2)
    memory.write(tmp_path, 0, saved, {}, 20)
    weight = loaded["weight"]
    memory.read(tmp_path, 0, loaded)
    assert flat(loaded) == flat(saved)
    assert loaded["weight"] is weight


@pytest.mark.parametrize("change", [{"half": torch.zeros(8)}, {"new": 1}, {"epoch": torch.ones(1)}])
def test_shard_of_other_states_is_refused_and_changes_nothing(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    memory.write(tmp_path, 0, states(1), {}, 20)
    loaded = {**states(2), **change}
    with pytest.raises(ShardMismatchError, match="other tensors or values"):
        memory.read(tmp_path, 0, loaded)
    assert torch.equal(loaded["weight"], states(2)["weight"])


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A world of one rank, whose agent offers AT; the folder of its memory."""
    known = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "GROUP_RANK": "0",
        environment.MEMORY: str(tmp_path),
        environment.ROUND: "4",
        environment.RESTORE: str(AT),
    }
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield tmp_path
    dist.destroy_process_group()


def tier(
    identity: Identity = IDENTITY, mesh: tuple[int, ...] = (1, 1, 1, 1), interval: int = 5
) -> MemoryTier:
    return MemoryTier(interval, identity, mesh)


def skipping(first: int, end: int) -> MemoryTier:
    """After a rollback that came after the offer was made."""
    found = tier()
    found.skipped = SkippedData((DataSteps(first, end),))
    return found


def offer(root: Path) -> Path:
    """What an agent that sealed AT has; the worker's file."""
    place = generations.folder(root, AT, 0)
    place.mkdir(parents=True)
    memory.write(place, 0, states(1), tier()._origin, AT.step)
    generations.seal(root, AT, 0, nodes=1)
    return generations.tensors_path(place, 0)


@pytest.mark.parametrize(
    ("saved_step", "kept", "found", "expected"),
    [
        (0, (), tier, ""),
        (20, (), tier, ""),
        (21, (), tier, "step 21 is on the volume, step 20 in memory"),
        (10, (10, 20), tier, ""),
        (10, (15,), tier, "step 15 is to be kept on the volume"),
        (0, (), lambda: tier(replace(IDENTITY, data_digest="other")), "of another data_digest"),
        (0, (), lambda: skipping(18, 19), "batches that are skipped since"),
        (0, (), lambda: skipping(20, 22), ""),
        (0, (), lambda: tier(mesh=(2, 1, 1, 1)), "of another mesh"),
    ],
)
def test_offer_is_taken_or_refused(
    alone: Path,
    caplog: pytest.LogCaptureFixture,
    saved_step: int,
    kept: tuple[int, ...],
    found: Any,
    expected: str,
) -> None:
    offer(alone)
    with caplog.at_level(logging.ERROR):
        assert found().can_load(saved_step, lambda step: step in kept) is not bool(expected)
    assert expected in caplog.text


def test_offer_damaged_or_not_whole_is_refused(alone: Path) -> None:
    file = offer(alone)
    file.write_bytes(b"x" + file.read_bytes()[1:])
    assert not tier().can_load(0, lambda _: False)
    (file.parent / "manifest.json").unlink()
    assert not tier().can_load(0, lambda _: False)


def test_save_at_each_interval_until_two_are_there_and_none_is_released(alone: Path) -> None:
    saves = tier()
    for step in range(21, 41):
        saves.at_boundary(step, lambda: states(1))
    assert [g.step for g in generations.generations(alone)] == [25, 30]
    generations.remove(alone, Generation(4, 25))
    for step in range(41, 51):
        saves.at_boundary(step, lambda: states(1))
    assert [g.step for g in generations.generations(alone)] == [30, 45]


def test_save_at_each_step_while_the_copy_of_one_takes_less_than_the_next(alone: Path) -> None:
    saves = tier(interval=1)
    for step in range(21, 31):
        saves.at_boundary(step, lambda: states(1))
        assert Generation(4, step) in generations.generations(alone)
        generations.keep(alone, Generation(4, step))  # copied while the next step is made


@pytest.mark.parametrize("is_loaded", [True, False])
def test_step_that_was_offered_is_saved_unless_it_was_loaded(alone: Path, is_loaded: bool) -> None:
    offer(alone)
    saves = tier()
    if is_loaded:
        saves.load(states(2))
    saves.at_boundary(AT.step, lambda: states(1))
    assert (Generation(4, AT.step) in generations.generations(alone)) is not is_loaded


def test_checkpoint_on_the_volume_is_not_written_over_after_a_restore_of_its_step(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(alone)
    monkeypatch.setattr(checkpointing, "newest_listed", lambda *_: AT.step)
    monkeypatch.setattr(CheckpointManager, "_save", lambda *_: pytest.fail("written over"))
    checkpoints = object.__new__(VerifiedCheckpoints)
    checkpoints.folder, checkpoints._group = "", dist.group.WORLD
    checkpoints._policy = CheckpointConfig(keep_latest=2, interval=AT.step)
    checkpoints._memory, checkpoints.states = tier(), {MODEL: Mock()}
    checkpoints._states_to_load = lambda **_: states(2)
    assert checkpoints._load_memory(SkippedData())
    assert not any(checkpoints._save_verified(AT.step, is_last) for is_last in (False, True))


def test_fault_in_a_save_to_the_volume_leaves_its_step_in_memory(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peer_dies(*_: Any) -> bool:
        raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(VerifiedCheckpoints, "_save_verified", peer_dies)
    checkpoints = object.__new__(VerifiedCheckpoints)
    checkpoints._memory = tier()
    checkpoints._flattened_model_states_sd = lambda: states(1)
    with pytest.raises(RuntimeError):
        checkpoints._save(25)
    assert list(generations.unsealed(alone, 0, workers=1)) == [Generation(4, 25)]


def test_save_without_room_is_left_out_and_the_next_ones_are_not(
    alone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    saves = tier()
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        saves.at_boundary(25, lambda: states(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "step 25 was not kept in memory" in caplog.text
    assert list(generations.unsealed(alone, 0, workers=1)) == []
    for step in range(26, 36):
        saves.at_boundary(step, lambda: states(1))
    assert [g.step for g in generations.generations(alone)] == [30, 35]
