"""Two agents' memories, as the coordinator hears of them: seal, copy, release, restore."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pretrain_llm.agent.link import Standing
from pretrain_llm.agent.replicas import Replicas, Restored
from pretrain_llm.agent.settings import MemorySettings
from pretrain_llm.checkpoints import generations
from pretrain_llm.contract.memory import Generation, MemoryStanding, MemoryView, Restore
from pretrain_llm.contract.protocol import RoundView
from pretrain_llm.contract.reports import MEMORY, PEER

FIRST, SECOND = Generation(1, 5), Generation(1, 10)
NOBODY = "127.0.0.1:1"


class Coordinator:
    """Of one agent: what it heard last, and what it says."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.heard = MemoryStanding("")
        self.view = RoundView("one", 1, round=1, broken=False)

    def hold(self, standing: MemoryStanding) -> None:
        with self.changed:
            self.heard = standing
            self.changed.notify_all()

    def hears(self, is_so: Callable[[MemoryStanding], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: is_so(self.heard), 5), self.heard

    @property
    def held(self) -> set[tuple[Generation, int]]:
        return {(h.generation, h.rank) for h in self.heard.holdings}


class Agent:
    def __init__(self, root: Path) -> None:
        self.coordinator = Coordinator()
        settings = MemorySettings(root, "127.0.0.1", 0, "token")
        self.replicas = Replicas(settings, self.coordinator, workers=1)  # type: ignore[arg-type]
        self.replicas.start()

    def enter(self, rank: int, *peers: str, number: int = 1, **memory: object) -> Restored | None:
        view = MemoryView(peers, **memory)  # type: ignore[arg-type]
        self.coordinator.view = replace(self.coordinator.view, round=number, memory=view)
        standing = Standing("Running", number, tuple("ab"[: len(peers)]), memory=view)
        return self.replicas.enter(standing, rank)

    def save(self, generation: Generation, rank: int) -> None:
        """As a worker does."""
        place = generations.folder(self.replicas.root, generation, rank)
        place.mkdir(parents=True)
        generations.tensors_path(place, 0).write_bytes(bytes(generation.step))
        generations.write(generations.header_path(place, 0), "{}")
        self.replicas.wake()

    def says_safe(self, generation: Generation) -> None:
        memory = replace(self.coordinator.view.memory, safe=generation)
        self.coordinator.view = replace(self.coordinator.view, memory=memory)
        self.replicas.wake()


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Agent]]:
    root = tmp_path_factory.mktemp("memory")
    agents = Agent(root / "a"), Agent(root / "b")
    yield agents
    for agent in agents:
        agent.replicas.close()


@pytest.fixture
def pair(agents: tuple[Agent, Agent]) -> tuple[Agent, Agent]:
    """Both in round 1, with nothing in memory."""
    addresses = [agent.replicas.address for agent in agents]
    for rank, agent in enumerate(agents):
        agent.enter(rank, *addresses)
    return agents


def test_saved_shards_are_sealed_and_copied_to_the_next_node(pair: tuple[Agent, Agent]) -> None:
    for rank, agent in enumerate(pair):
        agent.save(FIRST, rank)
    for agent in pair:
        agent.coordinator.hears(lambda told: len(told.holdings) == 2)
        assert agent.coordinator.held == {(FIRST, 0), (FIRST, 1)}


def test_safe_generation_releases_older_ones_and_makes_room(pair: tuple[Agent, Agent]) -> None:
    agent, root = pair[0], pair[0].replicas.root
    agent.save(FIRST, 0)
    agent.save(SECOND, 0)
    agent.coordinator.hears(lambda told: len(told.holdings) == 2)
    assert generations.is_full(root, 0, interval=5)
    agent.says_safe(SECOND)
    agent.coordinator.hears(lambda told: len(told.holdings) == 1)
    assert not generations.is_full(root, 0, interval=5)
    assert generations.generations(root) == [SECOND]


def test_peer_gone_is_told_and_shards_stay(pair: tuple[Agent, Agent]) -> None:
    agent = pair[0]
    agent.enter(0, agent.replicas.address, NOBODY)
    agent.save(FIRST, 0)
    agent.coordinator.hears(lambda told: told.problem is not None)
    assert agent.coordinator.held == {(FIRST, 0)}
    assert NOBODY in (agent.coordinator.heard.problem or "")


def test_next_round_starts_from_own_memory_or_the_peers(pair: tuple[Agent, Agent]) -> None:
    first, spare = pair
    addresses = first.replicas.address, spare.replicas.address
    first.enter(0, addresses[0], NOBODY)
    first.save(FIRST, 0)
    first.save(SECOND, 0)
    first.save(SECOND, 1)  # another node's copy
    generations.seal(first.replicas.root, SECOND, 1, nodes=2)
    first.replicas.settle()
    restore = Restore(SECOND, ("", addresses[0]))
    assert first.enter(0, *addresses, number=2, restore=restore) == Restored(SECOND, MEMORY)
    assert generations.generations(first.replicas.root) == [SECOND]
    assert spare.enter(1, *addresses, number=2, restore=restore) == Restored(SECOND, PEER)
    assert (SECOND, 1) in spare.coordinator.held


@pytest.mark.parametrize("source", ["", NOBODY])
def test_next_round_without_its_shards_starts_from_the_volume(
    pair: tuple[Agent, Agent], source: str
) -> None:
    restore = Restore(SECOND, ("", source))
    assert pair[1].enter(1, NOBODY, NOBODY, number=2, restore=restore) is None


def test_round_without_a_restore_begins_empty(pair: tuple[Agent, Agent]) -> None:
    agent = pair[0]
    agent.save(FIRST, 0)
    agent.coordinator.hears(lambda told: bool(told.holdings))
    agent.enter(0, agent.replicas.address, NOBODY, number=2)
    assert agent.coordinator.held == set()
    assert generations.generations(agent.replicas.root) == []
