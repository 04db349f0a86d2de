"""A loss that goes wrong: back to before it, without the batches, the same after every restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_llm.agent import settings
from pretrain_llm.checkpoints import folders
from pretrain_llm.contract import status
from pretrain_llm.contract.data_steps import DataSteps, SkippedData

from . import poisoned_worker
from .agent_world import World
from .runs import mesh, run_config, write_data
from .worlds import trained

NAN_AT, SPIKE_AT = 12, range(40, 43)  # data steps
OPTIONS = ("--spike-factor=7", "--spike-window-steps=10", "--spike-steps=3", "--skip-steps=3")


def test_training_nan_and_spike_are_rolled_back_and_their_batches_never_trained_again(
    volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_config(
        volume,
        parallelism=mesh(shard=2),
        nodes={"count": 2},
        training={"steps": 70},
        checkpoint={"interval": 5, "keep_latest": 3},
    )
    write_data(run.layout, tokens=80_000)
    poison = {NAN_AT: float("nan")} | dict.fromkeys(SPIKE_AT, 4.0)
    monkeypatch.setenv(poisoned_worker.POISON, json.dumps(poison))
    monkeypatch.setenv(poisoned_worker.TRAINED, str(volume))
    world = World(run, "tests.llm.poisoned_worker:main", settings.PRELOAD, OPTIONS)
    try:
        for number in (0, 1):
            world.stepping(after_round=number)
        world.stepping(above=45, after_round=2)
        world.kill_worker(world.members()[1], 0)
        codes = [agent.wait(180) for agent in world.agents.values()]
        assert codes == [0, 0]
        end = world.seen(lambda s: s.finished, "the end")
    finally:
        world.close()

    nan, spike, killed = end.incidents
    assert nan.first_fault
    assert (nan.first_fault.symptom, nan.first_fault.step) == ("NonFinite", NAN_AT + 1)
    assert nan.resumed_step in (5, 10), "that of 10 may not be sealed yet at step 13"
    assert spike.evidence == status.LOSS_SPIKE
    assert killed.rollback is None

    # Step 13 was the first bad one: data steps 10 to 12 go. So data step 40 is step 38's.
    skipped = SkippedData((DataSteps(10, 13), DataSteps(40, 43)))
    assert end.skipped == skipped
    expected = {step: skipped.data_step(step - 1) for step in range(1, 71)}
    for rank in (0, 1):
        assert poisoned_worker.batches(volume, rank) == expected
    assert end.replay.max_loss_difference == 0, "up to a rollback and after a kill: the same"

    root = Path(run.layout.checkpoints)
    assert folders.read_skipped(root) == skipped
    newest = folders.found(root, 70).manifest
    assert newest
    assert newest.skipped == skipped


@pytest.mark.usefixtures("warm_workers")
def test_checkpoint_of_batches_that_are_skipped_since_is_set_aside_whole(volume: Path) -> None:
    run = run_config(volume, training={"steps": 12}, checkpoint={"interval": 5, "keep_latest": 3})
    write_data(run.layout)
    first = trained(run)
    root, skipped = Path(run.layout.checkpoints), SkippedData((DataSteps(7, 9),))
    folders.write_skipped(root, skipped)

    again = trained(run)
    assert again.restored_step == 5
    assert [folder.name for folder in sorted((root / "quarantine").iterdir())] == [
        "step-10-1",
        "step-12-1",
    ]
    assert (root / "quarantine/step-10-1/manifest.json").exists()
    same = [step for step, loss in again.losses.items() if loss == first.losses[step]]
    assert same == [6, 7], "the first step on other data is the eighth"
    assert [skipped.data_step(step - 1) for step in (7, 8)] == [6, 9]
