"""Injected faults in real workers: torchtitan on two nodes meets each one and goes on.

One run bears them all, because starting it takes most of the time. tests/e2e/test_faults.py does
the same on a cluster, with what the operator makes of it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain_llm.agent import memory, settings
from pretrain_llm.contract import environment, exit_codes, status, symptoms
from pretrain_llm.contract.reports import FaultReport
from pretrain_llm.errors import InputError
from pretrain_llm.faults import __main__ as program
from pretrain_llm.faults import acts, checkpoints, hook, requests

from .agent_world import World
from .runs import mesh, run_config, write_data

INTERVAL = 10
START_SECONDS = 180.0  # on a machine that does much else


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    run = run_config(
        tmp_path_factory.mktemp("volume"),
        parallelism=mesh(shard=2),
        nodes={"count": 2},
        training={"steps": 1_000_000},
        checkpoint={"interval": INTERVAL, "keep_latest": 3},
    )
    write_data(run.layout, tokens=80_000)
    window = ("--straggler-window-steps", "20")  # two reports
    world = World(run, settings.WORKER, settings.PRELOAD, window, allows_faults=True)
    try:
        world.seen(lambda s: bool(s.progress), "the first step", START_SECONDS)
        yield world
    finally:
        world.close()


def struck(world: World, kind: str) -> status.StatusDocument:
    """After rank 1 has met the fault, and the next round steps: one fault breaks one round."""
    before = world.stepping(above=INTERVAL)
    world.inject(world.members()[1], kind)
    after = world.recovered(before.round)
    assert after.round == before.round + 1
    assert after.replay.max_loss_difference == 0
    return after


def first_fault(after: status.StatusDocument) -> FaultReport:
    incident = after.incidents[-1]
    assert incident.evidence == status.WORKER_EXIT
    assert incident.first_fault
    return incident.first_fault


@pytest.mark.parametrize(
    ("kind", "ending", "symptom", "words"),
    [
        ("worker-sigsegv", 11, None, None),
        ("worker-exit", 1, None, None),
        ("worker-exception", 1, None, "injected fault: worker-exception"),
        ("cuda-error", 1, symptoms.DEVICE_ERROR, acts.CUDA_ERROR),
        ("xid-on-stderr", 6, symptoms.DEVICE_BROKEN, None),
        ("device-oom", exit_codes.OUT_OF_MEMORY, symptoms.DEVICE_MEMORY, "CUDA out of memory"),
        ("nan-loss", 1, symptoms.NON_FINITE, "Loss is not finite"),
        ("storage-full", 1, symptoms.STORAGE_FULL, "No space left on device"),
    ],
)
def test_worker_meets_a_fault_and_the_run_goes_on(
    world: World, kind: str, ending: int, symptom: str | None, words: str | None
) -> None:
    fault = first_fault(struck(world, kind))
    assert ending in (fault.exit_code, fault.signal)
    assert fault.symptom == symptom
    assert (words or "") in (fault.error_message or "")
    assert (fault.error_message is None) == (words is None)


def test_worker_asked_to_stop_saves_and_no_step_is_lost(world: World) -> None:
    incident = struck(world, "worker-sigterm").incidents[-1]
    assert incident.evidence == status.STOP_REQUESTED
    assert incident.resumed_step == incident.last_step


def test_device_out_of_memory_at_start_meets_the_next_round_before_a_step(world: World) -> None:
    before = world.stepping(above=INTERVAL)
    world.inject(world.members()[1], "device-oom-at-start")
    after = world.recovered(before.round + 1)
    killed, starved = after.incidents[-2:]
    assert killed.first_step_seconds is None, "no step came between the two"
    assert killed.first_fault
    assert killed.first_fault.signal == 9
    assert starved.first_fault
    assert starved.first_fault.exit_code == exit_codes.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("checkpoint-truncated", "bytes"),
        ("checkpoint-bit-flipped", "checksum"),
        ("checkpoint-manifest-missing", None),
    ],
)
def test_checkpoint_damaged_is_not_loaded(world: World, kind: str, reason: str | None) -> None:
    before = world.stepping(above=3 * INTERVAL)
    said = world.inject(world.members()[1], kind)
    damaged = re.search(r"step-(\d+)", said)
    assert damaged
    after = world.recovered(before.round)
    resumed = after.incidents[-1].resumed_step
    assert resumed is not None
    assert resumed < int(damaged[1])
    new = after.quarantined[len(before.quarantined) :]
    assert len(new) == (reason is not None)
    assert all(reason in item.reason for item in new if reason)


def test_slow_rank_is_named_a_straggler_and_is_no_fault(world: World) -> None:
    before = world.stepping()
    name = world.members()[1]
    world.inject(name, "slow-rank", "--seconds=0.2", "--steps=25")
    late_seconds = 0.2 / world.config.model.num_layers
    late = world.seen(
        lambda s: any(
            slow.own_seconds > slow.median_seconds + late_seconds / 3 for slow in s.stragglers
        ),
        "a straggler",
    )
    slowest = late.stragglers[0]
    assert (slowest.rank, slowest.agent, slowest.node) == (1, name, f"node-{name[-1]}")
    assert (late.round, len(late.incidents)) == (before.round, len(before.incidents))


def test_loss_spike_is_seen_in_the_loss_and_no_fault(world: World) -> None:
    before = world.stepping()
    assert before.progress
    loss = before.progress.loss
    world.inject(world.members()[1], "loss-spike")
    after = world.seen(lambda s: bool(s.progress and s.progress.loss > 2 * loss), "the spike")
    assert after.round == before.round


# The parts, without a run


def options(kind: str, rank: int | None = None) -> argparse.Namespace:
    return argparse.Namespace(kind=kind, rank=rank, seconds=1.0, steps=20)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    listed = '{"agent": 1, "round": 1, "workers": [{"rank": 2, "localRank": 0, "pid": 7}]}'
    (tmp_path / "workers.json").write_text(listed)
    return tmp_path


def refused(scratch: Path, kind: str, *, rank: int | None = None, allowed: str = "true") -> str:
    variables = {environment.SCRATCH: str(scratch), environment.FAULT_INJECTION: allowed}
    with pytest.raises(InputError) as error:
        program.inject(options(kind, rank), variables)
    return str(error.value)


def test_pod_that_does_not_allow_it_refuses_with_the_field(scratch: Path) -> None:
    assert "spec.recovery.faultInjection" in refused(scratch, "worker-sigkill", allowed="false")


def test_rank_of_another_pod_is_refused_with_those_that_are_here(scratch: Path) -> None:
    assert "Here are 2." in refused(scratch, "worker-sigkill", rank=0)


def test_pod_without_workers_is_refused(tmp_path: Path) -> None:
    assert "no worker has been started" in refused(tmp_path, "worker-sigkill")


def test_host_memory_without_a_limit_is_refused(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "read_limit_bytes", lambda: None)
    assert "resources.limits.memory" in refused(scratch, "host-oom")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max\n", None), ("9223372036854771712\n", None), ("1073741824\n", 1 << 30)],
)
def test_memory_limit_is_read_from_both_versions_of_cgroups(
    text: str, expected: int | None
) -> None:
    assert memory.limit_bytes(text) == expected


def test_request_is_taken_once_and_one_for_the_start_only_there(tmp_path: Path) -> None:
    file = requests.path(tmp_path, 0)
    requests.leave(file, requests.Request("worker-exit"))
    assert requests.take(file, at_start=False) == requests.Request("worker-exit")
    assert requests.take(file, at_start=False) is None
    requests.leave(file, requests.Request("device-oom-at-start"))
    assert requests.take(file, at_start=False) is None
    assert requests.take(file, at_start=True) is not None


def test_hook_is_not_there_unless_the_pod_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.FAULT_INJECTION, raising=False)
    assert hook.hook(lambda _factor: None) is None


def test_checkpoint_damage_without_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(checkpoints.NothingToDamageError, match="has a manifest yet"):
        checkpoints.damage("checkpoint-truncated", tmp_path)
