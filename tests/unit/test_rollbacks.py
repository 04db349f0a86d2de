"""A loss that goes wrong: which step trains on what, what a spike is, how far the run goes back."""

from __future__ import annotations

import pytest

from pretrain_llm.contract import codec, protocol, status, symptoms
from pretrain_llm.contract.data_steps import DataSteps, SkippedData
from pretrain_llm.contract.protocol import AgentEvent
from pretrain_llm.contract.reports import RestoredReport, WorkerReport
from pretrain_llm.contract.status import Rollback
from pretrain_llm.coordinator import ledger, rollbacks
from pretrain_llm.coordinator.rollbacks import LossPolicy

from .test_coordinator_incidents import T0, Run, fault, saved, step


def skips(*ranges: tuple[int, int]) -> SkippedData:
    return SkippedData(tuple(DataSteps(*item) for item in ranges))


@pytest.mark.parametrize(
    ("skipped", "data_steps"),
    [
        (skips(), [0, 1, 2, 3, 4, 5]),
        (skips((0, 2)), [2, 3, 4, 5, 6, 7]),
        (skips((2, 4)), [0, 1, 4, 5, 6, 7]),
        (skips((4, 6), (1, 2)), [0, 2, 3, 6, 7, 8]),
        (skips((2, 4), (3, 5)), [0, 1, 5, 6, 7, 8]),
        (skips((2, 4), (4, 5)), [0, 1, 5, 6, 7, 8]),
    ],
)
def test_data_step_is_a_function_of_step_and_skips(skipped, data_steps):
    assert [skipped.data_step(finished) for finished in range(6)] == data_steps


@pytest.mark.parametrize("then", [skips(), skips((2, 4)), skips((2, 4), (4, 6)), skips((0, 9))])
@pytest.mark.parametrize("now", [skips(), skips((2, 4)), skips((2, 4), (4, 6)), skips((7, 8))])
@pytest.mark.parametrize("finished", range(10))
def test_histories_agree_where_the_same_data_was_trained(then, now, finished):
    def trained(skipped):
        return [skipped.data_step(number) for number in range(finished)]

    assert then.agrees(now, finished) == (trained(then) == trained(now))


@pytest.mark.parametrize("ranges", [(3, 3), (-1, 2), (5, 4)])
def test_range_without_data_is_refused(ranges):
    with pytest.raises(codec.DecodeError, match="are none"):
        codec.from_json(DataSteps, f'{{"first": {ranges[0]}, "end": {ranges[1]}}}')


EVEN = {number: 2.0 + 0.01 * (number % 3) for number in range(1, 21)}
POLICY = LossPolicy(spike_factor=7.0, window_steps=20, spike_steps=3)


@pytest.mark.parametrize(
    ("losses", "onset"),
    [
        pytest.param([3.0, 3.0, 3.0], 21, id="stays high"),
        pytest.param([3.0, 2.0, 3.0], None, id="comes back"),
        pytest.param([2.1, 2.1, 2.1], None, id="within seven sigmas"),
        pytest.param([1.0, 1.0, 1.0], None, id="falls"),
    ],
)
def test_spike_is_a_loss_that_stays_above_its_window(losses, onset):
    known = {**EVEN, **dict(enumerate(losses, start=21))}
    assert rollbacks.spike_onset(POLICY, known, 23) == onset


def test_spike_needs_a_whole_window_and_a_factor():
    known = {**EVEN, 21: 3.0, 22: 3.0, 23: 3.0}
    del known[7]
    assert rollbacks.spike_onset(POLICY, known, 23) is None
    assert rollbacks.spike_onset(LossPolicy(window_steps=2), known, 23) is None


@pytest.mark.parametrize(
    ("skipped", "checkpoints", "onset", "seen_at", "first", "batches"),
    [
        pytest.param(skips(), [20], 33, 42, 28, (27, 42), id="as many as the policy says"),
        pytest.param(skips(), [20, 30], 33, 42, 31, (30, 42), id="none of a checkpoint before it"),
        pytest.param(skips(), [20, 40], 33, 42, 28, (27, 42), id="a newer checkpoint is undone"),
        pytest.param(skips(), [20], 22, 42, 22, (21, 42), id="a long spike is skipped whole"),
        pytest.param(skips(), [], 33, 33, 33, (32, 33), id="no checkpoint is known: it alone"),
        pytest.param(skips((5, 8)), [20], 33, 42, 28, (30, 45), id="after an earlier rollback"),
    ],
)
def test_rollback_undoes_and_skips(skipped, checkpoints, onset, seen_at, first, batches):
    policy = LossPolicy(skip_steps=15)
    decided = rollbacks.rollback(policy, skipped, checkpoints, onset, seen_at)
    assert decided == Rollback(onset, first, DataSteps(*batches))


def test_rollbacks_spent_nothing_more_is_skipped():
    policy = LossPolicy(max_rollbacks=1)
    assert rollbacks.rollback(policy, skips((1, 2)), [20], 33, 33) == Rollback(33)


def not_finite(rank: int, at_step: int) -> AgentEvent:
    return fault(rank, T0 + 1, symptom=symptoms.NON_FINITE, step=at_step)


def test_loss_that_is_not_finite_is_skipped_once_for_all_workers():
    run = Run()
    run.report("a", T0 + 1, *(step(number, T0) for number in range(1, 9)), saved(5, T0))
    run.report("b", T0 + 1, not_finite(1, 9))
    run.report("a", T0 + 1.1, not_finite(0, 9))
    assert run.incident.rollback == Rollback(9, 6, DataSteps(5, 9))
    assert run.status.skipped == skips((5, 9))
    assert ledger.view(run.ledger).carried.skipped == skips((5, 9))
    run.report("a", T0 + 1.2, step(7, T0, loss=9.0))  # of the undone round, told late
    run.wait_again(T0 + 2)
    run.report("a", T0 + 3, *(step(number, T0, 2) for number in (5, 6, 7)))
    assert run.status.replay == status.Replay(steps=1), "steps 6 and 7 have other batches"


def test_loss_spike_breaks_the_round_and_is_no_workers_fault():
    run = Run()
    run.ledger = ledger.replace(run.ledger, loss_policy=POLICY)
    run.report("a", T0 + 1, *(step(n, T0, loss=loss) for n, loss in EVEN.items()), saved(20, T0))
    run.report("a", T0 + 2, *(step(number, T0 + 2, loss=3.0) for number in (21, 22, 23)))
    told = run.incident
    assert (told.evidence, told.agent, told.first_fault) == (status.LOSS_SPIKE, None, None)
    assert told.rollback == Rollback(21, 21, DataSteps(20, 23))
    assert ledger.view(run.ledger).broken


def test_skips_are_learnt_from_agents_and_from_the_volume_and_never_forgotten():
    run = Run()
    run.report("b", T0 + 1, carried=protocol.Carried(skipped=skips((1, 2))))
    restored = RestoredReport(0, T0, skipped=skips((1, 2), (7, 9)))
    run.report("a", T0 + 1, AgentEvent(worker=WorkerReport(0, 1, restored=restored)))
    run.report("b", T0 + 2)
    assert run.status.skipped == skips((1, 2), (7, 9))
