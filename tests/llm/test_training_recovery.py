"""Nothing trained is lost or trained otherwise: kill, stop, resume, resume on fewer ranks."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pretrain_llm.checkpoints import folders
from pretrain_llm.contract import exit_codes
from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.intervals import MAX_STALL_SHARE
from pretrain_llm.coordinator import cadence

from .runs import changed, mesh, run_config, write_data
from .worlds import World, trained, world

pytestmark = pytest.mark.usefixtures("warm_workers")

STEPS = 40
KILLED_AFTER = 14


def _run(volume: Path) -> RunConfig:
    return run_config(
        volume,
        parallelism=mesh(shard=2),
        training={"steps": STEPS, "local_batch_size": 2},
        checkpoint={"interval": 10, "keep_latest": 3},
    )


def _on_one_rank(run: RunConfig) -> RunConfig:
    return changed(run, parallelism=mesh())


def _checkpoints(run: RunConfig) -> list[int]:
    found = folders.scan(Path(run.layout.checkpoints))
    return [item.step for item in found if item.manifest]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of a run that nothing happened to."""
    run = _run(tmp_path_factory.mktemp("undisturbed"))
    write_data(run.layout)
    return trained(run, ranks=2).losses


def _killed(run: RunConfig) -> World:
    with world(run, ranks=2) as workers:
        workers.wait_for(lambda w: KILLED_AFTER in w.losses and w.saved_steps)
        workers.kill()
        workers.exit_codes()
    return workers


def test_training_killed_and_resumed_repeats_the_same_losses(
    volume: Path, undisturbed: dict[int, float]
) -> None:
    run = _run(volume)
    before = _killed(run)
    after = trained(run, ranks=2)
    assert 0 < after.restored_step <= max(before.losses)
    assert before.losses.keys() & after.losses.keys()
    assert {**before.losses, **after.losses} == undisturbed
    assert all(undisturbed[step] == loss for step, loss in before.losses.items())


def test_training_resumed_on_fewer_ranks_goes_on_with_the_same_losses(
    volume: Path, undisturbed: dict[int, float]
) -> None:
    run = _run(volume)
    _killed(run)
    after = trained(_on_one_rank(run))
    assert after.restored_step > 0
    assert min(after.losses) == after.restored_step + 1
    rest = {step: undisturbed[step] for step in after.losses}
    assert after.losses == pytest.approx(rest, abs=5e-6)


def test_training_one_rank_asked_to_stop_all_save_this_step_and_leave(
    volume: Path, undisturbed: dict[int, float]
) -> None:
    run = _run(volume)
    with world(run, ranks=2) as workers:
        workers.wait_for(lambda w: 7 in w.losses)
        workers.workers[1].terminate()
        assert workers.exit_codes() == [exit_codes.SAVED, exit_codes.SAVED]
    last_step = max(workers.losses)
    assert last_step < STEPS
    assert _checkpoints(run)[0] == last_step
    after = trained(run, ranks=2)
    assert after.restored_step == last_step
    assert {**workers.losses, **after.losses} == undisturbed


def test_training_asked_to_stop_while_it_sets_up_leaves_and_loses_nothing(volume: Path) -> None:
    run = _on_one_rank(_run(volume))
    with world(run) as workers:
        workers.wait_for(lambda w: "Building" in w.log())
        workers.kill(signal.SIGTERM)
        assert workers.exit_codes() == [exit_codes.SAVED]
    assert _checkpoints(run) == sorted(workers.losses)[-1:]


def test_training_finished_keeps_the_newest_and_can_be_prolonged(volume: Path) -> None:
    run = _on_one_rank(_run(volume))
    short = changed(run, training={"steps": 12})
    first = trained(short)
    assert _checkpoints(run) == [12, 10]
    assert first.saved_steps == [10, 12]
    longer = trained(changed(run, training={"steps": 17}))
    assert longer.restored_step == 12
    assert list(longer.losses) == [13, 14, 15, 16, 17]
    assert _checkpoints(run) == [17, 12, 10]


def test_training_saves_listed_steps_keeps_them_and_resumes_from_the_first_weights(
    volume: Path, undisturbed: dict[int, float]
) -> None:
    run = changed(
        _run(volume),
        training={"steps": 11},
        checkpoint={"interval": 4, "keep_latest": 2, "keep_steps": (0, 1, 2), "keep_every": 5},
    )
    assert trained(run, ranks=2).saved_steps == [0, 1, 2, 4, 5, 8, 10, 11]
    root = Path(run.layout.checkpoints)
    assert _checkpoints(run) == [11, 10, 5, 2, 1, 0]
    for step in (11, 10, 5, 2, 1):
        folders.remove(root, step)
    again = trained(changed(run, training={"steps": 3}), ranks=2)
    assert again.restored_step == 0
    assert again.saved_steps == [1, 2, 3]
    assert again.losses == pytest.approx({step: undisturbed[step] for step in (1, 2, 3)})


def test_training_saving_the_first_weights_changes_no_loss(volume: Path) -> None:
    plain = replace(changed(_run(volume), training={"steps": 6}), run="plain")
    saving = replace(changed(plain, checkpoint={"keep_steps": (0,)}), run="saving")
    for run in (plain, saving):
        write_data(run.layout)
    assert trained(saving, ranks=2).losses == trained(plain, ranks=2).losses


def test_training_with_an_interval_that_changes_saves_alike_on_all_ranks(volume: Path) -> None:
    run = changed(
        _run(volume),
        training={"steps": 60},
        checkpoint={"interval": None, "min_interval": 2, "keep_latest": 50},
    )
    with world(run, ranks=2) as workers:
        workers.wait_for(lambda w: len(w.saved_steps) > 2)
        part = workers.folder / "save-interval.part"  # whole or not at all, as rank 0's agent does
        part.write_text("7")
        part.replace(workers.folder / "save-interval")
        workers.finish()
    *paced, last = workers.saved_steps
    assert last == 60
    gaps = [later - earlier for earlier, later in pairwise([0, *paced])]
    assert set(gaps) == {2, 7}
    assert gaps == sorted(gaps)
    # The account: a stall is part of the next step, and what the coordinator makes of it holds.
    rhythm = cadence.initial(changed(run, checkpoint={"max_interval": 10**8}).checkpoint, 2)
    steps = {told.step.step: told.step for told in workers.reports if told.step}
    for told in workers.reports:
        if told.step:
            rhythm = cadence.stepped(rhythm, told.step)
        if told.saved and told.saved.step < 60:
            assert told.saved.stall_seconds <= steps[told.saved.step + 1].seconds
            assert told.saved.stall_seconds <= told.saved.seconds
            rhythm = cadence.saved(rhythm, told.saved)
    assert len(rhythm.cadence.costs) == cadence.KEPT_COSTS
    assert rhythm.cadence.stall_share is not None
    assert rhythm.cadence.stall_share <= MAX_STALL_SHARE


def test_training_finished_and_started_again_trains_nothing(volume: Path) -> None:
    run = changed(_on_one_rank(_run(volume)), training={"steps": 3})
    trained(run)
    again = trained(run)
    assert again.restored_step == 3
    assert again.losses == {}
