"""Segments of a real run: the same losses whatever happens at a boundary, each with its mix."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.optim import SGD

from pretrain_llm import artifacts
from pretrain_llm.agent import settings
from pretrain_llm.checkpoints import folders, generations
from pretrain_llm.contract import codec, environment, exit_codes
from pretrain_llm.contract.config import (
    MemoryConfig,
    RunConfig,
    ScheduleConfig,
    SegmentConfig,
    SourceConfig,
    WeightConfig,
)
from pretrain_llm.contract.curriculum import Consumed, segment_of, segments
from pretrain_llm.contract.manifests import ArtifactManifest
from pretrain_llm.contract.memory import Generation
from pretrain_llm.data.index import INDEX, ShardIndex
from pretrain_llm.data.packed import PackedDataset, order_seed
from pretrain_llm.errors import InputError
from pretrain_llm.export import work
from pretrain_llm.training import cpu
from pretrain_llm.training.inputs import open_inputs

from .agent_world import World as Cluster
from .runs import changed, mesh, run_config, write_data
from .worlds import World, all_losses, trained_in_rounds, world

cpu.enable()  # before torchtitan is imported
from pretrain_llm.training import titan  # noqa: E402
from pretrain_llm.training.schedulers import Schedulers  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("warm_workers"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
    pytest.mark.filterwarnings("ignore:To get the last learning rate:UserWarning"),  # torchtitan's
]

STEPS, BOUNDARY = 14, 8
SECOND = SegmentConfig(
    BOUNDARY,
    sequence_length=64,
    global_batch_size=4,
    local_batch_size=2,
    rope_theta=5e5,
    learning_rate=5e-3,
    schedule=ScheduleConfig(0, "linear", 1.0, 0.0),
    weights=(WeightConfig("code", 1.0),),
)
RENEWED = replace(SECOND, reset_optimizer=True)


def _run(volume: Path) -> RunConfig:
    run = run_config(
        volume,
        training={"steps": STEPS, "curriculum": (SECOND,)},
        checkpoint={"interval": 3, "keep_latest": 9},
    )
    sources = tuple(
        SourceConfig(name, name, "text", "text", weight)
        for name, weight in (("web", 3.0), ("code", 1.0))
    )
    return replace(run, data=replace(run.data, sources=sources))


def _write_sources(run: RunConfig) -> ShardIndex:
    """One shard a source."""
    index = write_data(run.layout)
    shards = zip(index.train, ("web", "code"), strict=True)
    named = replace(index, train=tuple(replace(shard, source=name) for shard, name in shards))
    folder = Path(run.layout.data)
    (folder / INDEX).write_text(codec.to_json(named))
    (folder / "manifest.json").unlink()
    manifest = ArtifactManifest("Data", "x", index.tokenizer_fingerprint, artifacts.entries(folder))
    artifacts.write_manifest(folder, manifest)
    return named


def test_loader_of_a_segment_reads_its_sources_in_its_order(tmp_path: Path) -> None:
    run = _run(tmp_path)
    index = _write_sources(run)
    folder, everyone = Path(run.layout.data), segments(run)
    first, second = everyone
    sizes = {"dp_world_size": 1, "dp_rank": 0, "local_batch_size": 4}
    loader = titan.PackedLoader.Config(
        folder=str(folder), index=index, segments=everyone, segment=second
    ).build(seq_len=64, **sizes)
    loader.load_state_dict({"steps": BOUNDARY, **asdict(first.consumed(BOUNDARY))})
    batch, _ = next(iter(loader))
    code = PackedDataset(
        folder,
        index,
        sequence_length=64,
        seed=order_seed(run.training.seed, 1),
        weights={"code": 1.0},
    )
    expected = [code.sample(position)[:-1].tolist() for position in range(4)]
    assert batch["input"].tolist() == expected
    with pytest.raises(InputError, match="not the 2048 of this spec"):
        loader.load_state_dict({"steps": BOUNDARY, "samples": 64, "tokens": 4096})


def test_schedule_of_a_segment_begins_at_its_step(tmp_path: Path) -> None:
    run = _run(tmp_path)
    _write_sources(run)
    config = titan.trainer_config(run, open_inputs(run), BOUNDARY)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=5e-3)
    schedulers = config.lr_scheduler.build(optimizers=[optimizer], training_steps=STEPS)
    optimizer.param_groups[0]["lr"] = 0.1  # as it was saved in the segment before
    schedulers.load_state_dict({"last_epoch": BOUNDARY})
    schedulers.apply()
    rates = []
    for _ in range(BOUNDARY, STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedulers.step()
    assert rates == pytest.approx([5e-3 * (6 - n) / 6 for n in range(6)])


def test_schedule_with_steps_of_its_own_is_cut_short_or_stays_at_its_end() -> None:
    def rates(steps: int | None) -> list[float]:
        built = Schedulers.Config(
            total_steps=steps, warmup_steps=0, decay_ratio=1.0, min_lr_factor=0.1
        ).build(optimizers=[SGD([torch.zeros(1, requires_grad=True)], lr=1.0)], training_steps=4)
        (schedule,) = built.schedulers
        factor = schedule.lr_lambdas[0]
        return [factor(step) for step in range(4)]

    assert rates(8) == pytest.approx([1 - 0.9 * n / 8 for n in range(4)])
    assert rates(2) == pytest.approx([1, 0.55, 0.55, 0.55])
    assert rates(None) == pytest.approx([1 - 0.9 * n / 4 for n in range(4)])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, list[World]]:
    run = _run(tmp_path_factory.mktemp("undisturbed"))
    _write_sources(run)
    return run, trained_in_rounds(run)


def test_each_segment_is_a_round_of_its_own_and_the_tokens_add_up(
    undisturbed: tuple[RunConfig, list[World]],
) -> None:
    run, rounds = undisturbed
    assert [list(each.losses) for each in rounds] == [
        list(range(1, BOUNDARY + 1)),
        list(range(BOUNDARY + 1, STEPS + 1)),
    ]
    assert rounds[1].restored_step == BOUNDARY
    tokens = {r.step.step: r.step.tokens for each in rounds for r in each.reports if r.step}
    assert (tokens[BOUNDARY], tokens[STEPS]) == (8 * 8 * 32, 8 * 8 * 32 + 6 * 4 * 64)
    saved = {item.step: item.manifest for item in folders.scan(Path(run.layout.checkpoints))}
    assert sorted(saved) == [3, 6, 8, 9, 12, 14]
    for step, manifest in saved.items():
        assert manifest
        expected = segment_of(run, step).consumed(step)
        assert Consumed(manifest.samples, manifest.tokens) == expected
        assert manifest.model_fingerprint == run.model.fingerprint


@pytest.mark.parametrize("killed_after", [BOUNDARY - 1, BOUNDARY, BOUNDARY + 2])
def test_run_killed_around_a_boundary_repeats_the_same_losses(
    volume: Path, undisturbed: tuple[RunConfig, list[World]], killed_after: int
) -> None:
    run = _run(volume)
    _write_sources(run)
    before = []
    while not before or killed_after not in before[-1].losses:
        with world(run) as workers:
            before.append(workers)
            workers.wait_for(lambda w: killed_after in w.losses or not w.workers[0].is_alive())
            if killed_after in workers.losses:
                workers.workers[0].kill()
            workers.exit_codes()
    after = trained_in_rounds(run)
    expected = all_losses(undisturbed[1])
    assert all_losses(before) | all_losses(after) == expected
    assert all(expected[step] == loss for step, loss in all_losses(before).items())


def test_newest_checkpoint_damaged_across_a_boundary_the_next_round_starts_right(
    tmp_path: Path, undisturbed: tuple[RunConfig, list[World]]
) -> None:
    shutil.copytree(undisturbed[0].volume, tmp_path, dirs_exist_ok=True)
    run = _run(tmp_path)
    root = Path(run.layout.checkpoints)
    for step in (BOUNDARY, 12, STEPS):
        folders.remove(root, step)
    damaged = next(folders.step_folder(root, 9).glob("*.distcp"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with world(run) as workers:
        assert workers.exit_codes() == [exit_codes.ERROR]
        assert "built for steps 9 to 14, but step 6 was restored" in workers.error().message
    expected = all_losses(undisturbed[1])
    assert all_losses(trained_in_rounds(run)) == {
        step: expected[step] for step in range(7, STEPS + 1)
    }


def test_exported_model_has_the_length_and_rotation_of_the_last_segment(
    undisturbed: tuple[RunConfig, list[World]],
) -> None:
    run, _ = undisturbed
    result = work.export(run)
    exported = json.loads((Path(result.path) / "config.json").read_text())
    assert exported["max_position_embeddings"] == 64
    assert 5e5 in (
        exported.get("rope_theta"),
        exported.get("rope_parameters", {}).get("rope_theta"),
    )


def test_boundary_with_tensor_parallelism_has_the_losses_of_one_rank(
    volume: Path, undisturbed: tuple[RunConfig, list[World]]
) -> None:
    run = changed(_run(volume), parallelism=mesh(tensor=2))
    _write_sources(run)
    found = trained_in_rounds(run, ranks=2)
    assert [each.restored_step for each in found[1:]] == [BOUNDARY]
    assert all_losses(found) == pytest.approx(all_losses(undisturbed[1]), abs=2e-5)


def test_boundary_of_pipeline_stages_goes_on_as_on_one_rank(volume: Path) -> None:
    """Of the same checkpoint: stages draw other first weights than one rank."""
    whole = changed(_run(volume), model={"tie_embeddings": False})
    run = changed(whole, parallelism=mesh(pipeline=2))
    _write_sources(run)
    found = trained_in_rounds(run, ranks=2)
    assert [each.restored_step for each in found[1:]] == [BOUNDARY]
    for step in (9, 12, STEPS):
        folders.remove(Path(run.layout.checkpoints), step)
    (alone,) = trained_in_rounds(whole)
    assert alone.losses == pytest.approx(found[1].losses, abs=2e-5)


def test_run_that_goes_on_from_anothers_boundary_with_a_seed_has_another_order(
    tmp_path: Path, undisturbed: tuple[RunConfig, list[World]]
) -> None:
    first, worlds = undisturbed
    second = replace(
        changed(first, training={"curriculum": (replace(SECOND, seed=7),)}),
        run="second",
        volume=str(tmp_path),
    )
    _copy(first, second, "data", "tokenizer", f"checkpoints/step-{BOUNDARY}")
    (found,) = trained_in_rounds(second)
    assert found.restored_step == BOUNDARY
    theirs = all_losses(worlds)
    assert all(theirs[step] != loss for step, loss in found.losses.items())


@pytest.fixture(scope="module")
def renewed(
    undisturbed: tuple[RunConfig, list[World]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, World]:
    """From the same boundary on, with a new optimiser."""
    first, _ = undisturbed
    volume = tmp_path_factory.mktemp("renewed")
    run = replace(changed(first, training={"curriculum": (RENEWED,)}), volume=str(volume))
    _copy(first, run, "data", "tokenizer", f"checkpoints/step-{BOUNDARY}")
    (found,) = trained_in_rounds(run)
    return run, found


def test_segment_with_a_new_optimizer_begins_with_its_first_step(
    undisturbed: tuple[RunConfig, list[World]], renewed: tuple[RunConfig, World]
) -> None:
    carried, (run, found) = all_losses(undisturbed[1]), renewed
    assert found.losses[BOUNDARY + 1] == carried[BOUNDARY + 1]  # of the same weights and samples
    assert all(found.losses[step] != carried[step] for step in range(BOUNDARY + 2, STEPS + 1))
    saved = _optimizer_state(folders.step_folder(Path(run.layout.checkpoints), BOUNDARY + 1))
    beta1, beta2 = run.training.optimizer.beta1, run.training.optimizer.beta2
    means = [name for name in saved if name.endswith(".exp_avg")]
    assert means
    for name in means:
        steps, square = saved[name.replace(".exp_avg", ".step")], saved[f"{name}_sq"]
        assert steps == 1
        assert torch.allclose(square, (1 - beta2) * (saved[name] / (1 - beta1)) ** 2)


def test_segment_with_a_new_optimizer_killed_within_goes_on_with_its_state(
    tmp_path: Path, renewed: tuple[RunConfig, World]
) -> None:
    run, found = replace(renewed[0], volume=str(tmp_path)), renewed[1]
    _copy(renewed[0], run, "data", "tokenizer", f"checkpoints/step-{BOUNDARY + 1}")
    (again,) = trained_in_rounds(run)
    assert again.restored_step == BOUNDARY + 1
    assert again.losses == {step: found.losses[step] for step in range(BOUNDARY + 2, STEPS + 1)}


def test_segment_with_a_new_optimizer_begins_from_memory_as_from_the_volume(
    tmp_path: Path, renewed: tuple[RunConfig, World]
) -> None:
    """Killed when the last step of the one before was in memory, and not yet on the volume."""
    checkpoint = {"interval": STEPS, "memory": MemoryConfig(BOUNDARY)}
    run = changed(replace(renewed[0], volume=str(tmp_path)), checkpoint=checkpoint)
    _copy(renewed[0], run, "data", "tokenizer")
    here, at = {environment.MEMORY: str(tmp_path / "memory")}, Generation(1, BOUNDARY)
    with world(run, variables={**here, environment.ROUND: "1"}) as workers:
        assert workers.exit_codes() == [exit_codes.SAVED]
    folders.remove(Path(run.layout.checkpoints), BOUNDARY)
    generations.seal(tmp_path / "memory", at, 0, nodes=1)
    offered = {**here, environment.ROUND: "2", environment.RESTORE: str(at)}
    with world(run, variables=offered) as workers:
        workers.finish()
    assert workers.losses == renewed[1].losses


def _copy(source: RunConfig, target: RunConfig, *names: str) -> None:
    for name in names:
        shutil.copytree(Path(source.layout.root) / name, Path(target.layout.root) / name)


def _optimizer_state(folder: Path) -> dict[str, torch.Tensor]:
    """By the names that it is saved by."""
    reader = FileSystemReader(folder)
    state = {
        name: torch.empty(item.size, dtype=item.properties.dtype)
        for name, item in reader.read_metadata().state_dict_metadata.items()
        if isinstance(item, TensorStorageMetadata)
        and name.endswith((".exp_avg", ".exp_avg_sq", ".step"))
    }
    dcp.load(state, storage_reader=reader, no_dist=True)
    return state


def test_agents_go_on_with_the_next_segment_and_nobody_is_charged(volume: Path) -> None:
    """With checkpoints in memory too: at a boundary the volume's is newer, and is what counts."""
    memory = {"interval": 6, "memory": MemoryConfig(3)}
    run = changed(_run(volume), nodes={"count": 2}, parallelism=mesh(shard=2), checkpoint=memory)
    _write_sources(run)
    cluster = Cluster(run, settings.WORKER, settings.PRELOAD)
    try:
        end = cluster.seen(lambda s: s.finished, "the end")
        assert {agent.wait(60) for agent in cluster.agents.values()} == {0}
        assert end.memory_checkpoint
        assert end.memory_checkpoint.stall_seconds > 0
        assert (end.round, end.incidents, end.replay.steps) == (2, (), 0)
        assert end.progress
        assert (end.progress.step, end.progress.tokens) == (STEPS, 8 * 8 * 32 + 6 * 4 * 64)
    finally:
        cluster.close()
