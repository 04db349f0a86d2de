"""What a round starts from, and what is safe: who holds what, and what follows."""

from __future__ import annotations

import pytest

from pretrain_llm.contract import protocol
from pretrain_llm.contract.memory import Generation, Holding, MemoryStanding, Restore
from pretrain_llm.contract.protocol import AgentEvent, AgentReport
from pretrain_llm.contract.reports import (
    MEMORY,
    PEER,
    MemorySavedReport,
    RestoredReport,
    SavedReport,
    StepReport,
    WorkerReport,
)
from pretrain_llm.coordinator import ledger, memory
from pretrain_llm.coordinator.ledger import Identity
from pretrain_llm.coordinator.rounds import Policy

T0 = 1000.0


def held(*holdings: str, nodes: int = 2) -> tuple[Holding, ...]:
    """`1-20/0`: node 0's shards of round 1, step 20."""
    found = []
    for text in holdings:
        generation, _, rank = text.partition("/")
        round_number, _, step = generation.partition("-")
        found.append(Holding(Generation(int(round_number), int(step)), int(rank), nodes, 10))
    return tuple(found)


def standings(nodes: int = 2, **holdings: str) -> dict[str, MemoryStanding]:
    return {
        name: MemoryStanding(f"{name}:1", held(*text.split(), nodes=nodes))
        for name, text in holdings.items()
    }


BOTH = {"a": "1-20/0 1-20/1", "b": "1-20/1 1-20/0"}


@pytest.mark.parametrize(
    ("nodes", "holdings", "expected"),
    [
        pytest.param(2, {"a": "", "b": ""}, None, id="nothing is held"),
        pytest.param(2, BOTH, "1-20", id="everything twice"),
        pytest.param(2, {"a": "1-20/0", "b": "1-20/1 1-20/0"}, None, id="one node's only once"),
        pytest.param(
            2,
            {"a": "1-20/0 1-20/1 1-25/0", "b": "1-20/0 1-20/1 1-25/1 1-25/0"},
            "1-20",
            id="the newest is on its way",
        ),
        pytest.param(
            2, {"a": "1-20/0 2-20/1", "b": "1-20/1 2-20/0"}, None, id="one step, two rounds"
        ),
        pytest.param(
            2,
            {"a": "1-90/0 1-90/1 2-20/0 2-20/1", "b": "1-90/0 1-90/1 2-20/0 2-20/1"},
            "2-20",
            id="a later round counts, whatever its step",
        ),
        pytest.param(1, {"a": "1-20/0"}, "1-20", id="one node has nobody to hold a copy"),
        pytest.param(
            3,
            {"a": "1-20/0 1-20/2", "b": "1-20/1 1-20/0", "c": "1-20/2 1-20/1"},
            "1-20",
            id="three in a ring",
        ),
    ],
)
def test_safe_generation(nodes: int, holdings: dict[str, str], expected: str | None) -> None:
    found = memory.safe(standings(nodes, **holdings), nodes)
    assert (str(found) if found else None) == expected


def test_safe_holdings_of_another_world_do_not_count() -> None:
    assert memory.safe(standings(3, **BOTH), 2) is None
    assert memory.safe(standings(2, a="1-20/0 1-20/5", b="1-20/0 1-20/1"), 2) is None


@pytest.mark.parametrize(
    ("members", "holdings", "saved_step", "expected"),
    [
        pytest.param("ab", {}, 0, None, id="nothing is held"),
        pytest.param("ab", BOTH, 0, ("1-20", "", ""), id="each from its own memory"),
        pytest.param(
            "ab", {"a": "1-20/0", "b": "1-20/1"}, 0, ("1-20", "", ""), id="no copies are needed"
        ),
        pytest.param("ac", {"a": BOTH["a"]}, 0, ("1-20", "", "a:1"), id="a spare from the peer"),
        pytest.param(
            "ac", {"a": BOTH["a"], "c": ""}, 0, ("1-20", "", "a:1"), id="a spare that holds nothing"
        ),
        pytest.param("ac", {"a": "1-20/0"}, 0, None, id="the lost node's copy was not there yet"),
        pytest.param(
            "ac",
            {"a": "1-15/0 1-15/1 1-20/0"},
            10,
            ("1-15", "", "a:1"),
            id="the lost node's copy was not there yet: the one before",
        ),
        pytest.param("ba", BOTH, 0, ("1-20", "", ""), id="ranks changed: copies become their own"),
        pytest.param("ab", BOTH, 20, ("1-20", "", ""), id="the volume has the same step: memory"),
        pytest.param("ab", BOTH, 21, None, id="the volume has a newer one"),
        pytest.param("abc", BOTH, 0, None, id="the world grew"),
        pytest.param("a", BOTH, 0, None, id="the world shrank"),
    ],
)
def test_restore(
    members: str, holdings: dict[str, str], saved_step: int, expected: tuple[str, ...] | None
) -> None:
    found = memory.restore(standings(**holdings), tuple(members), saved_step, is_barren=False)
    assert (found and (str(found.generation), *found.sources)) == expected


def test_restore_after_a_round_without_progress_is_from_the_volume() -> None:
    assert memory.restore(standings(**BOTH), ("a", "b"), 0, is_barren=True) is None


class Run:
    """A ledger whose agents hold things in memory."""

    def __init__(self) -> None:
        identity = Identity("run", attempt=1, total_steps=1000, coordinator="one")
        self.ledger = ledger.opened(identity, Policy(nodes=2, spares=1), T0)
        self.held: dict[str, tuple[Holding, ...]] = {"a": (), "b": (), "c": ()}
        self.sent, self.entered = dict.fromkeys("abc", 0), dict.fromkeys("abc", 0)
        for name in "abc":
            self.report(name, T0, protocol.WAITING)
        self.step(T0, 22)

    def report(self, name: str, now: float, state: str, *events: AgentEvent) -> None:
        if state == protocol.RUNNING:
            self.entered[name] = self.round
        told = AgentReport(
            agent=name,
            incarnation=name,
            attempt=1,
            slot="abc".index(name),
            node=name,
            state=state,
            time=now,
            round=self.entered[name],
            members=self.members,
            first_event=self.sent[name],
            events=events,
            memory=MemoryStanding(f"{name}:1", self.held[name]),
        )
        self.sent[name] += len(events)
        self.ledger = ledger.told(self.ledger, told, now)

    def worker(self, now: float, rank: int = 0, **report: object) -> None:
        event = AgentEvent(worker=WorkerReport(rank, self.round, **report))
        self.report(self.members[rank], now, protocol.RUNNING, event)

    def step(self, now: float, step: int) -> None:
        self.worker(now, step=StepReport(step, 1.0, step, 1.0, 1.0, now))

    def hold(self, now: float, **holdings: str) -> None:
        for name, text in holdings.items():
            self.held[name] = held(*text.split())
            self.report(name, now, protocol.RUNNING if name in self.members else protocol.WAITING)

    def lose(self, name: str, now: float) -> None:
        """Its node is gone, and its memory; the others wait again."""
        self.ledger = ledger.ticked(self.ledger, now)
        self.ledger = ledger.hung_up(self.ledger, name, now)
        self.ledger = ledger.ticked(self.ledger, now + 0.9)  # a longer gap is the clock's
        for other in "abc".replace(name, ""):
            self.report(other, now + 1.5, protocol.WAITING)

    @property
    def round(self) -> int:
        return self.ledger.rounds.round.number if self.ledger.rounds.round else 0

    @property
    def members(self) -> tuple[str, ...]:
        return self.ledger.rounds.round.members if self.ledger.rounds.round else ()

    @property
    def view(self) -> protocol.RoundView:
        return ledger.view(self.ledger)


def test_generation_with_its_copies_is_told_at_once_and_shown() -> None:
    run = Run()
    revision = run.view.revision
    run.hold(T0, a="1-20/0", b="1-20/1 1-20/0")
    assert (run.view.memory.safe, run.view.revision) == (None, revision)
    run.hold(T0, a="1-20/0 1-20/1")
    assert (run.view.memory.safe, run.view.revision) == (Generation(1, 20), revision + 1)
    assert run.view.memory.addresses == ("a:1", "b:1")
    run.worker(T0, memory_saved=MemorySavedReport(25, 10, 0.5, T0))
    shown = ledger.status(run.ledger, T0).memory_checkpoint
    assert shown
    assert (shown.step, shown.bytes, shown.stall_seconds) == (20, 20, 0.5)
    assert ledger.status(run.ledger, T0).stall_seconds == 0.5


def test_node_lost_spare_is_told_where_its_copy_is_and_the_incident_says_so() -> None:
    run = Run()
    run.hold(T0, **BOTH)
    run.lose("b", T0 + 1)
    assert run.members == ("a", "c")
    assert run.view.memory.restore == Restore(Generation(1, 20), ("", "a:1"))
    run.worker(T0 + 3, 1, restored=RestoredReport(20, T0 + 3, PEER))
    run.worker(T0 + 3, 0, restored=RestoredReport(20, T0 + 3, MEMORY))
    run.step(T0 + 4, 21)
    incident = ledger.status(run.ledger, T0 + 4).incidents[-1]
    assert (incident.restored_from, incident.resumed_step, incident.steps_lost) == (PEER, 20, 2)


def test_node_lost_newer_checkpoint_on_the_volume_wins() -> None:
    run = Run()
    run.hold(T0, **BOTH)
    run.worker(T0, saved=SavedReport(21, "/c/step-21", 1, T0, 0.0))
    run.lose("b", T0 + 1)
    assert run.members == ("a", "c")
    assert run.view.memory.restore is None


def test_node_lost_twice_without_progress_second_start_is_from_the_volume() -> None:
    run = Run()
    run.hold(T0, **BOTH)
    run.lose("b", T0 + 1)
    run.hold(T0 + 3, c="1-20/1 1-20/0")
    first = run.round
    fault = WorkerReport(1, first, step=StepReport(21, 1.0, 21, 1.0, 1.0, T0 + 3))
    run.report("c", T0 + 3, protocol.RUNNING, AgentEvent(worker=fault))  # a step that was there
    for now in (T0 + 3.5, T0 + 4.5):
        run.report("a", now, protocol.WAITING)
        run.report("c", now, protocol.WAITING)
    assert run.round == first + 1
    assert run.view.memory.restore is None
