"""The bench's two trainers have the same configuration, and train in turns."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hack.throughput.__main__ import together
from hack.throughput.cases import Case
from hack.throughput.processes import started
from hack.throughput.worker import BARE, OURS, Task, write_shards

from .runs import VOCAB_SIZE, mesh, run_config

pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(tmp_path, VOCAB_SIZE, 20_000)
    return tmp_path


def test_bare_torchtitan_has_our_configuration_but_for_what_is_ours(folder: Path) -> None:
    from hack.throughput import trainers

    run = run_config(folder, training={"steps": 1000}, checkpoint={"interval": 1000})
    ours, bare = (trainers.config(Task(system, run, str(folder), 2)) for system in (OURS, BARE))
    differing = {item.name for item in fields(bare) if not _same(ours, bare, item.name)}
    assert differing == {"optimizer", "lr_scheduler", "metrics", "dataloader", "checkpoint"}
    assert ours.optimizer.param_groups == bare.optimizer.param_groups
    assert ours.metrics.log_freq == bare.metrics.log_freq == 1
    for name in ("warmup_steps", "decay_ratio", "decay_type", "min_lr_factor", "total_steps"):
        assert getattr(ours.lr_scheduler, name) == getattr(bare.lr_scheduler, name)


def _same(ours: Any, bare: Any, name: str) -> bool:
    """Models hold functions, which are made anew each time."""
    if name == "model_spec":
        return bool(ours.model_spec.flavor == bare.model_spec.flavor)
    return bool(getattr(ours, name) == getattr(bare, name))


def test_both_train_in_turns(folder: Path) -> None:
    run = run_config(
        folder,
        nodes={"devices_per_node": 2},
        parallelism=mesh(shard=2),
        training={"steps": 1000},
        checkpoint={"interval": 1000},
    )
    start = together(Case("tiny", run, ranks=2), 3, folder)
    assert len(start.pairs) == 3
    assert all(seconds > 0 for pair in start.pairs for seconds in pair)
    assert start.end["device"] == "CPU"


def test_a_rank_that_died_ends_the_measurement(folder: Path) -> None:
    run = run_config(folder, model={"num_heads": 3})  # of a width that 3 does not divide
    with (
        started(Task(OURS, run, str(folder), 1), 1) as system,
        pytest.raises(RuntimeError, match="a worker has died"),
    ):
        system.warm_up()
