"""First cause, echoes and the four durations, from what agents report to the coordinator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrain_llm.contract import protocol, status, symptoms
from pretrain_llm.contract.protocol import AgentEvent, AgentReport, Carried
from pretrain_llm.contract.reports import (
    FaultReport,
    QuarantinedReport,
    RestoredReport,
    SavedReport,
    StepReport,
    WorkerReport,
)
from pretrain_llm.contract.status import Incident
from pretrain_llm.coordinator import incidents, ledger
from pretrain_llm.coordinator.ledger import Identity, Ledger
from pretrain_llm.coordinator.rounds import Policy

T0 = 1000.0
GLOO = "Gloo connectFullMesh failed: Connection closed by peer [10.0.0.1]:1"


class Run:
    """A ledger, and agents that number their events as real ones do."""

    def __init__(self, boundaries: tuple[int, ...] = ()) -> None:
        identity = Identity("run", attempt=1, total_steps=100, coordinator="one")
        policy = Policy(nodes=2, spares=0, boundaries=boundaries)
        self.ledger = ledger.opened(identity, policy, T0)
        self.sent = {"a": 0, "b": 0}
        self.report("a", T0)
        self.report("b", T0)
        self.report("a", T0, state=protocol.RUNNING)
        self.report("b", T0, state=protocol.RUNNING)

    def report(
        self,
        name: str,
        now: float,
        *events: AgentEvent,
        state: str = "",
        skew: float = 0.0,
        carried: Carried | None = None,
        incarnation: str = "",
        round_number: int | None = None,
    ) -> None:
        """Of the newest round, where none is given."""
        number = self.ledger.rounds.round.number if self.ledger.rounds.round else 0
        number = number if round_number is None else round_number
        told = AgentReport(
            agent=name,
            incarnation=incarnation or f"{name}-1",
            attempt=1,
            slot="ab".index(name),
            node=f"node-{name}",
            state=state or (protocol.RUNNING if number else protocol.WAITING),
            time=now + skew,
            round=number,
            members=("a", "b"),
            first_event=self.sent[name],
            events=events,
            carried=carried or Carried(),
        )
        self.sent[name] += len(events)
        self.ledger = ledger.told(self.ledger, told, now)

    def heartbeats(self, name: str, start: float, end: float, state: str) -> None:
        now = start
        while now < end:
            now += 0.5
            self.report(name, now, state=state)

    def wait_again(self, now: float) -> None:
        for name in ("a", "b"):
            self.report(name, now, state=protocol.WAITING)

    @property
    def incident(self) -> Incident:
        return self.status.incidents[-1]

    @property
    def status(self) -> status.StatusDocument:
        return ledger.status(self.ledger, T0)


def fault(rank: int, time: float, **fields: object) -> AgentEvent:
    known = {"round": 1, "rank": rank, "time": time, "exit_code": 1}
    return AgentEvent(fault=FaultReport(**{**known, **fields}))


def step(number: int, time: float, round_number: int = 1, loss: float = 1.0) -> AgentEvent:
    told = StepReport(number, loss, 10 * number, 0.5, 20.0, time)
    return AgentEvent(worker=WorkerReport(0, round_number, step=told))


def restored(number: int, time: float, rank: int = 0, round_number: int = 2) -> AgentEvent:
    told = RestoredReport(number, time)
    return AgentEvent(worker=WorkerReport(rank, round_number, restored=told))


def test_recovery_all_phases_are_measured() -> None:
    run = Run()
    run.report("a", T0 + 5, step(30, T0 + 4.9))
    run.report("b", T0 + 6, fault(1, T0 + 5.8, exit_code=None, signal=9))
    run.wait_again(T0 + 6.5)
    run.report("a", T0 + 8, restored(20, T0 + 7.5))
    run.report("b", T0 + 8, restored(20, T0 + 7.9, rank=1))
    run.report("a", T0 + 9, step(21, T0 + 8.4, round_number=2))
    told = run.incident
    assert (told.round, told.evidence, told.slot, told.node) == (1, status.WORKER_EXIT, 1, "node-b")
    durations = (
        told.detect_seconds,
        told.reschedule_seconds,
        told.restore_seconds,
        told.first_step_seconds,
    )
    assert durations == (0.2, 0.5, 1.4, 0.5)
    assert (told.last_step, told.resumed_step, told.steps_lost) == (30, 20, 10)


@pytest.mark.parametrize(
    ("faults", "first_rank", "echoes"),
    [
        pytest.param([fault(0, 4.0), fault(1, 3.0)], 1, 1, id="the earlier one, told later"),
        pytest.param(
            [fault(0, 2.0, error_message=GLOO), fault(1, 3.0, signal=9, exit_code=None)],
            1,
            1,
            id="a lost connection is an echo, even an early one",
        ),
        pytest.param(
            [fault(0, 2.0, error_kind="DistBackendError"), fault(1, 3.0, error_kind="KeyError")],
            1,
            1,
            id="torch's own kind of echo",
        ),
        pytest.param(
            [fault(0, 3.0, error_message=GLOO), fault(1, 2.0, error_message=GLOO)],
            1,
            1,
            id="only echoes: the earliest",
        ),
        pytest.param(
            [
                fault(0, 2.0, signal=6, exit_code=None, symptom=symptoms.COLLECTIVE_TIMEOUT),
                fault(1, 3.0, signal=6, exit_code=None, symptom=symptoms.DEVICE_BROKEN),
            ],
            1,
            1,
            id="NCCL's watchdog ends the peers with SIGABRT",
        ),
        pytest.param(
            [
                fault(0, 2.0, error_message=GLOO, symptom=symptoms.PEER_LOST),
                fault(1, 3.0, signal=6, exit_code=None, symptom=symptoms.COLLECTIVE_TIMEOUT),
            ],
            1,
            1,
            id="only echoes: who gave up waiting, seen dead after its peer",
        ),
        pytest.param(
            [
                fault(0, 2.0, error_message="NCCL timeout"),
                fault(1, 3.0, signal=6, exit_code=None, symptom=symptoms.COLLECTIVE_TIMEOUT),
            ],
            1,
            1,
            id="the same, with a peer whose words are no symptom",
        ),
    ],
)
def test_first_fault_is_the_earliest_genuine_one(
    faults: list[AgentEvent], first_rank: int, echoes: int
) -> None:
    run = Run()
    for name, event in zip("ab", faults, strict=True):
        run.report(name, T0 + 6, event)
    assert run.incident.first_fault
    assert (run.incident.first_fault.rank, run.incident.echoes) == (first_rank, echoes)
    assert run.incident.agent == "ab"[first_rank]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"error_message": GLOO}, True),
        ({"error_kind": "DistNetworkError"}, True),
        ({"error_message": "NCCL error: remote process exited"}, True),
        ({"error_message": "KeyError: 'loss'"}, False),
        ({"error_message": GLOO, "out_of_memory": True}, False),
        ({"error_message": GLOO, "exit_code": 64}, False),
        ({"exit_code": None, "signal": 11}, False),
        ({"exit_code": None, "signal": 6, "symptom": symptoms.COLLECTIVE_TIMEOUT}, True),
        ({"error_message": "NCCL: Xid 79", "symptom": symptoms.DEVICE_BROKEN}, False),
    ],
)
def test_echo_is_told_from_a_genuine_failure(fields: dict[str, object], expected: bool) -> None:
    event = fault(0, T0, **fields)
    assert event.fault
    assert incidents.is_echo(event.fault) is expected


def test_lost_agent_after_its_peers_echo_is_the_cause() -> None:
    run = Run()
    run.heartbeats("b", T0, T0 + 1.5, protocol.RUNNING)
    run.report("b", T0 + 2.0, fault(1, T0 + 1.9, error_message=GLOO))
    run.heartbeats("b", T0 + 2.0, T0 + 3.5, protocol.WAITING)
    told = run.incident
    assert (told.evidence, told.agent, told.first_fault) == (status.LEASE_EXPIRED, "a", None)
    assert (told.echoes, told.time, told.detect_seconds) == (1, T0, 2.0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(GLOO, (status.LEASE_EXPIRED, "a", None, 1), id="an echo of the lost one"),
        pytest.param("no batch", (status.WORKER_EXIT, "b", "node-b", 0), id="a fault of its own"),
    ],
)
def test_fault_that_took_the_coordinator_along_is_known_to_the_next(
    words: str, expected: tuple[object, ...]
) -> None:
    run = Run()
    run.ledger = ledger.opened(run.ledger.identity, Policy(nodes=2, spares=0), T0 + 39)
    last_words = (step(31, T0 + 5.4), fault(1, T0 + 6, error_message=words))
    for at in range(40, 50):
        run.report("b", T0 + at, *last_words, state=protocol.WAITING, round_number=1)
        last_words = ()
        known = expected[:2] if at == 49 else (status.WORKER_EXIT, "b")
        assert (run.incident.evidence, run.incident.agent) == known
    (told,) = run.status.incidents
    assert (told.evidence, told.agent, told.node, told.echoes) == expected
    assert (told.round, told.time, told.detect_seconds, told.last_step) == (1, T0 + 6, 34, 31)


def test_lost_agent_after_a_genuine_fault_is_not_the_cause() -> None:
    run = Run()
    run.heartbeats("b", T0, T0 + 1.5, protocol.RUNNING)
    run.report("b", T0 + 2.0, fault(1, T0 + 1.9, exit_code=None, signal=11))
    run.heartbeats("b", T0 + 2.0, T0 + 3.5, protocol.WAITING)
    assert (run.incident.evidence, run.incident.agent) == (status.WORKER_EXIT, "b")


@pytest.mark.parametrize("echo_first", [True, False])
def test_agent_started_anew_at_once_is_the_cause_of_its_peers_echo(echo_first: bool) -> None:
    run = Run()

    def tell_echo() -> None:
        run.report("b", T0 + 2.0, fault(1, T0 + 1.9, error_message=GLOO))

    def restart() -> None:
        run.report("a", T0 + 2.0, state=protocol.PREPARING, incarnation="a-2", round_number=0)

    for tell in (tell_echo, restart) if echo_first else (restart, tell_echo):
        tell()
    told = run.incident
    assert (told.evidence, told.agent, told.first_fault) == (status.AGENT_RESTARTED, "a", None)
    assert (told.node, told.echoes) == ("node-a", 1)


def test_agent_started_anew_after_it_stopped_its_workers_is_not_the_cause() -> None:
    run = Run()
    run.report("b", T0 + 2.0, fault(1, T0 + 1.9, error_message=GLOO))
    run.report("a", T0 + 2.1, state=protocol.WAITING)
    run.report("a", T0 + 2.2, state=protocol.PREPARING, incarnation="a-2", round_number=0)
    assert (run.incident.evidence, run.incident.agent) == (status.WORKER_EXIT, "b")


def test_genuine_fault_while_a_round_drains_is_the_cause_though_an_echo_comes_first() -> None:
    run = Run()
    run.report("a", T0 + 1, state=protocol.LEAVING)
    run.report("a", T0 + 2, fault(0, T0 + 1.9, error_message=GLOO), state=protocol.LEAVING)
    assert run.incident.evidence == status.STOP_REQUESTED
    run.report("b", T0 + 2.1, fault(1, T0 + 1.8, exit_code=None, signal=11))
    told = run.incident
    assert (told.evidence, told.agent, told.time) == (status.WORKER_EXIT, "b", T0 + 1.8)


def test_clock_skew_of_an_agent_is_taken_out() -> None:
    run = Run()
    run.report("b", T0 + 6, fault(1, T0 + 5.5 + 3600), skew=3600)
    assert (run.incident.time, run.incident.detect_seconds) == (T0 + 5.5, 0.5)


def test_recovery_cut_short_keeps_its_open_durations() -> None:
    run = Run()
    run.report("a", T0 + 1, step(5, T0 + 1))
    run.report("b", T0 + 2, fault(1, T0 + 2))
    run.wait_again(T0 + 2.5)
    run.report("b", T0 + 3, fault(1, T0 + 3, round=2))
    run.wait_again(T0 + 5)
    run.report("a", T0 + 6, step(6, T0 + 6, round_number=3))
    first, second = run.status.incidents
    assert (first.reschedule_seconds, first.first_step_seconds) == (0.5, None)
    assert (second.round, second.first_step_seconds) == (2, 1.0)


@pytest.mark.parametrize(("number", "is_last"), [(39, False), (40, True), (100, True)])
def test_round_has_no_further_step_at_the_end_of_a_segment(number: int, is_last: bool) -> None:
    run = Run(boundaries=(40,))
    run.report("a", T0 + 1, step(number, T0 + 1))
    assert run.ledger.rounds.round
    assert run.ledger.rounds.round.pace.is_last == is_last


def test_step_reported_after_the_end_moves_the_last_step() -> None:
    run = Run()
    run.report("a", T0 + 1, step(5, T0 + 1))
    run.report("b", T0 + 2, fault(1, T0 + 2))
    run.report("a", T0 + 2.1, step(6, T0 + 1.5))
    assert run.incident.last_step == 6


def test_event_sent_twice_counts_once() -> None:
    run = Run()
    run.report("a", T0 + 1, step(1, T0 + 1))
    run.sent["a"] = 0
    run.report("a", T0 + 2, step(1, T0 + 1), step(2, T0 + 2))
    assert run.status.replay.steps == 0
    assert run.status.progress
    assert run.status.progress.step == 2
    assert ledger.view(run.ledger, "a-1").acknowledged == 2


def test_replayed_steps_are_compared() -> None:
    run = Run()
    run.report("a", T0 + 1, step(1, T0, loss=4.0), step(2, T0, loss=3.0), step(3, T0, loss=2.0))
    run.report("a", T0 + 2, step(2, T0, 2, loss=3.0), step(3, T0, 2, loss=2.5))
    assert run.status.replay == status.Replay(steps=2, max_loss_difference=0.5)


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [(float("nan"), float("nan"), 0.0), (1.0, float("nan"), float("inf"))],
)
def test_replayed_nan_is_equal_only_to_itself(
    first: float, second: float, difference: float
) -> None:
    run = Run()
    run.report("a", T0 + 1, step(1, T0, loss=first), step(1, T0, 2, loss=second))
    assert run.status.replay.max_loss_difference == difference


def test_progress_has_the_first_loss_and_the_median_step() -> None:
    run = Run()
    run.report("a", T0 + 1, *(step(n, T0, loss=9.0 - n) for n in (1, 2, 3)))
    told = run.status.progress
    assert told
    assert (told.initial_loss, told.loss, told.step_seconds, told.total_steps) == (8, 6, 0.5, 100)


def test_new_coordinator_is_told_what_the_last_one_knew() -> None:
    run = Run()
    saved = SavedReport(3, "step-3", 7, T0, 0.1)
    run.report("a", T0 + 1, *(step(n, T0 + n, loss=9.0 - n) for n in (1, 2, 3)))
    run.report("a", T0 + 1, AgentEvent(worker=WorkerReport(0, 1, saved=saved)))
    carried = ledger.view(run.ledger).carried
    new = told_by_spare(carried)
    told = ledger.status(new, T0 + 9)
    assert told.progress
    assert (told.progress.step, told.progress.initial_loss) == (3, 8)
    assert told.latest_checkpoint == saved
    assert new.rounds.highest_step == 3


def test_incident_is_told_on_by_the_next_coordinator_which_ends_it_once() -> None:
    run = Run()
    run.report("a", T0 + 5, step(30, T0 + 4.9))
    run.report("b", T0 + 6, fault(1, T0 + 5.8, exit_code=None, signal=9))
    early = ledger.view(run.ledger).carried  # what "a" heard last
    run.wait_again(T0 + 6.5)
    late = ledger.view(run.ledger).carried
    next_run = Run()
    next_run.ledger = told_by_spare(early)
    next_run.report("b", T0 + 7, carried=late, round_number=2)
    next_run.report("a", T0 + 7, carried=early, round_number=2)
    for number in (1, 2):
        next_run.report("a", T0 + 8, restored(20, T0 + 7.5 + number / 10))
        next_run.report("a", T0 + 9, step(20 + number, T0 + 8 + number, round_number=2))
    assert len(next_run.status.incidents) == 1
    told = next_run.incident
    assert told.first_fault == run.incident.first_fault
    assert (told.steps_lost, told.reschedule_seconds, told.restore_seconds) == (10, 0.5, 1.1)
    assert told.first_step_seconds == 1.4


def test_recovery_whose_round_went_with_its_coordinator_ends_in_the_one_after() -> None:
    run = Run()
    run.report("b", T0 + 6, fault(1, T0 + 6))
    run.wait_again(T0 + 7)
    next_run = Run()
    next_run.ledger = told_by_spare(ledger.view(run.ledger).carried)
    waiting = replace(next_run.ledger.rounds, highest_round=2)  # neither has begun round 2
    next_run.ledger = replace(next_run.ledger, rounds=waiting)
    next_run.report("a", T0 + 9, state=protocol.WAITING)
    next_run.report("b", T0 + 9, state=protocol.WAITING)
    assert ledger.view(next_run.ledger).round == 3
    next_run.report("a", T0 + 10, restored(20, T0 + 10, round_number=3))
    next_run.report("a", T0 + 11, step(21, T0 + 11, round_number=3))
    told = next_run.incident
    assert (told.round, told.reschedule_seconds, told.first_step_seconds) == (1, 3, 1)


def test_incident_is_carried_until_it_is_over_and_was_read() -> None:
    run = Run()
    run.report("b", T0 + 6, fault(1, T0 + 6))
    assert [told.incident for told in carried_at(run, T0 + 600)] == [run.incident]
    run.wait_again(T0 + 7)
    run.report("a", T0 + 9, step(21, T0 + 9, round_number=2))
    assert [told.over for told in carried_at(run, T0 + 20)] == [True]
    assert carried_at(run, T0 + 60) == ()


def carried_at(run: Run, now: float) -> tuple[protocol.RecentIncident, ...]:
    return ledger.view(ledger.ticked(run.ledger, now)).carried.incidents


def test_start_is_over_with_the_first_step_and_stalls_are_summed_and_carried() -> None:
    run = Run()
    run.report("a", T0 + 1, step(1, T0 + 1), step(2, T0 + 2))
    for at, seconds in ((2, 0.5), (4, 0.25), (100, 8.0)):  # no step waits for the last save
        saved = SavedReport(at, f"step-{at}", 7, T0, seconds)
        run.report("a", T0 + 3, AgentEvent(worker=WorkerReport(0, 1, saved=saved)))
    told = run.status
    assert told.first_step == status.FirstStep(1, T0 + 1)
    assert told.stall_seconds == 0.75
    new = ledger.status(told_by_spare(ledger.view(run.ledger).carried), T0 + 9)
    assert (new.first_step, new.stall_seconds) == (None, 0.75)


def test_interruptions_count_once_and_not_where_a_stop_was_asked_for() -> None:
    run = Run()
    run.report("a", T0 + 1, step(1, T0 + 1))
    run.report("a", T0 + 2, fault(0, T0 + 2))
    run.report("b", T0 + 2, fault(1, T0 + 2, error_message=GLOO))  # its echo
    assert run.status.cadence.interruptions == 1
    new = ledger.status(told_by_spare(ledger.view(run.ledger).carried), T0 + 9)
    assert new.cadence == run.status.cadence
    run.wait_again(T0 + 3)
    for name in ("a", "b"):
        run.report(name, T0 + 4, state=protocol.LEAVING)
        run.report(name, T0 + 5, state=protocol.LEFT)
    assert run.incident.evidence == status.STOP_REQUESTED
    assert run.status.cadence.interruptions == 1


def told_by_spare(carried: Carried) -> Ledger:
    identity = Identity("run", attempt=1, total_steps=100, coordinator="two")
    opened = ledger.opened(identity, Policy(nodes=2, spares=1), T0 + 9)
    spare = AgentReport("c", "c-1", 1, 2, "node-c", protocol.WAITING, T0 + 9, carried=carried)
    return ledger.told(opened, spare, T0 + 9)


def test_quarantined_checkpoint_is_listed() -> None:
    run = Run()
    told = QuarantinedReport(5, "step-5/x: wrong size", "quarantine/step-5", T0 + 1)
    run.report("a", T0 + 1, AgentEvent(worker=WorkerReport(0, 1, quarantined=told)))
    assert run.status.quarantined == (told,)


def saved(number: int, time: float, round_number: int = 1) -> AgentEvent:
    told = SavedReport(number, f"step-{number}", 7, time, 0.1)
    return AgentEvent(worker=WorkerReport(0, round_number, saved=told))


def damaged(number: int, time: float) -> AgentEvent:
    told = QuarantinedReport(number, "wrong size", f"quarantine/step-{number}-1", time)
    return AgentEvent(worker=WorkerReport(0, 2, quarantined=told))


@pytest.mark.parametrize(
    ("events", "latest"),
    [
        pytest.param([saved(3, 1), saved(6, 2), damaged(6, 3)], 3, id="the one before it"),
        pytest.param([saved(6, 2), damaged(6, 3)], None, id="none before it is known"),
        pytest.param(
            [saved(3, 1), saved(6, 2), damaged(6, 3), restored(0, 4)], None, id="from scratch"
        ),
        pytest.param([saved(3, 1), saved(6, 2), restored(3, 4)], 3, id="the word of damage lost"),
        pytest.param([saved(6, 2), damaged(6, 3), saved(6, 9, 2)], 6, id="saved again"),
        pytest.param([saved(3, 1), damaged(6, 3), saved(6, 2)], 3, id="told of damage first"),
        pytest.param([saved(3, 1), saved(6, 5, 2), restored(3, 4)], 6, id="a slow rank's word"),
        pytest.param([saved(3, 1), saved(6, 2), restored(6, 4)], 6, id="not damaged"),
    ],
)
def test_latest_checkpoint_is_one_that_training_can_go_on_from(
    events: list[AgentEvent], latest: int | None
) -> None:
    run = Run()
    run.report("a", 10.0, *events)
    told = run.status.latest_checkpoint
    assert (told and told.step) == latest
    assert ledger.view(run.ledger).carried.latest_checkpoint == told


@pytest.mark.parametrize(
    "word",
    [
        pytest.param(damaged(6, 11.0), id="damaged"),
        pytest.param(restored(3, 4), id="training went back behind it"),
    ],
)
def test_latest_checkpoint_taken_back_is_not_brought_back_by_a_late_report(
    word: AgentEvent,
) -> None:
    run = Run()
    run.report("a", 10.0, saved(3, 1), saved(6, 2))
    before = ledger.view(run.ledger).carried
    run.report("a", 11.0, word)
    run.report("b", 12.0, carried=before)
    assert run.status.latest_checkpoint
    assert run.status.latest_checkpoint.step == 3


def test_save_told_twice_before_the_first_step_costs_nothing() -> None:
    run = Run()
    run.report("a", 10.0, saved(0, 1), saved(0, 2))
    assert run.ledger.rhythm.cadence.costs == ()


def test_hang_up_before_the_coordinator_stood_still_ends_no_lease() -> None:
    run = Run()
    run.report("a", 10.0)
    run.report("b", 10.0)
    run.ledger = ledger.hung_up(run.ledger, "b", 10.3)
    run.report("a", 13.0)
    assert not ledger.view(run.ledger).broken
    for tenth in range(1, 13):
        run.report("a", 13.0 + tenth / 10)
    assert ledger.view(run.ledger).broken


def test_revision_grows_only_with_what_agents_must_hear() -> None:
    run = Run()
    known = run.ledger.revision
    run.report("a", T0 + 1, step(1, T0))
    assert run.ledger.revision == known
    run.report("a", T0 + 2, fault(0, T0 + 2))
    assert run.ledger.revision == known + 1
    assert ledger.view(run.ledger).broken
