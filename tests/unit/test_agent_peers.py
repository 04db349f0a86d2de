"""Shards on their way between two agents: whole and verified, or not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain_llm.agent import peers
from pretrain_llm.agent.peers import Peer, Server, TransferError
from pretrain_llm.checkpoints import generations
from pretrain_llm.contract.memory import Generation, Shards

OLD, NEW = Generation(1, 5), Generation(1, 10)
TOKEN = "secret"


class Agent:
    """One agent's memory and its server."""

    def __init__(self, root: Path) -> None:
        self.root, self.oldest = root, OLD
        root.mkdir()
        self.copies: list[Shards] = []
        self.wanted = lambda generation: generation >= self.oldest
        self.server = Server(0, root, TOKEN, lambda g: self.wanted(g), self.copies.append)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def peer(self, token: str = TOKEN) -> Peer:
        return Peer(self.address, token)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "peer")
    yield agent
    agent.close()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    root.mkdir()
    return root


def saved(root: Path, generation: Generation = NEW, rank: int = 0) -> Shards:
    """Sealed shards of two workers."""
    place = generations.folder(root, generation, rank)
    place.mkdir(parents=True)
    for local_rank in range(2):
        content = bytes([local_rank]) * (peers.CHUNK_BYTES + 17)
        generations.tensors_path(place, local_rank).write_bytes(content)
        generations.write(generations.header_path(place, local_rank), "{}")
    return generations.seal(root, generation, rank, nodes=2)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_send_peer_has_the_same_files_and_hears_of_it_once(agent: Agent, mine: Path) -> None:
    shards = saved(mine)
    for _ in range(2):
        with agent.peer() as peer:
            peer.send(mine, shards)
    assert contents(agent.root) == contents(mine)
    assert agent.copies == [shards]


def test_fetch_brings_the_same_files(agent: Agent, mine: Path) -> None:
    shards = saved(agent.root, rank=1)
    with agent.peer() as peer:
        assert peer.fetch(mine, NEW, 1, lambda: True) == shards
    assert contents(mine) == contents(agent.root)


def test_send_damaged_after_it_was_sealed_is_refused(agent: Agent, mine: Path) -> None:
    shards = saved(mine)
    path = generations.tensors_path(generations.folder(mine, NEW, 0), 0)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with (
        pytest.raises(TransferError, match=r"0\.bin: 422: .*another checksum"),
        agent.peer() as peer,
    ):
        peer.send(mine, shards)
    assert agent.copies == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: b"x" + whole[1:], "another checksum"),
        (lambda whole: whole[:-1], "1 of .* bytes are missing"),
        (lambda whole: None, "404"),
    ],
)
def test_fetch_damaged_at_the_peer_is_refused_and_counts_for_nothing(
    agent: Agent, mine: Path, damage: object, message: str
) -> None:
    saved(agent.root)
    path = generations.tensors_path(generations.folder(agent.root, NEW, 0), 1)
    content = damage(path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(TransferError, match=message), agent.peer() as peer:
        peer.fetch(mine, NEW, 0, lambda: True)
    assert generations.read_shards(mine, NEW, 0) is None


def test_peer_gone_is_an_error_at_once(agent: Agent, mine: Path, tmp_path: Path) -> None:
    shards = saved(mine)
    gone = Agent(tmp_path / "gone")
    gone.close()
    with pytest.raises(TransferError, match="refused"), gone.peer() as peer:
        peer.send(mine, shards)


def test_fetch_not_wanted_any_more_ends(agent: Agent, mine: Path) -> None:
    saved(agent.root)
    with pytest.raises(TransferError, match="not wanted any more"), agent.peer() as peer:
        peer.fetch(mine, NEW, 0, lambda: False)


def test_send_abandoned_ends_with_an_error(agent: Agent, mine: Path) -> None:
    """Abandoned while the peer is asked whether it wants the first file."""
    shards = saved(mine)
    with agent.peer() as peer:
        agent.wanted = lambda _: peer.abandon() is None
        with pytest.raises(TransferError):
            peer.send(mine, shards)
    assert agent.copies == []


def test_generation_that_is_over_is_not_taken(agent: Agent, mine: Path) -> None:
    agent.oldest = NEW
    with pytest.raises(TransferError, match="409: 1-5 is not wanted"), agent.peer() as peer:
        peer.send(mine, saved(mine, OLD))
    assert contents(agent.root) == {}


def test_token_of_another_attempt_is_refused(agent: Agent, mine: Path) -> None:
    with pytest.raises(TransferError, match="403"), agent.peer("guessed") as peer:
        peer.send(mine, saved(mine))
    with pytest.raises(TransferError, match="403"), agent.peer("guessed") as peer:
        peer.fetch(mine, NEW, 0, lambda: True)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/generations/../0/0.bin", "/generations/1-5/0/../x", "/generations/1-5"],
)
def test_path_outside_of_a_generation_is_not_served(agent: Agent, path: str) -> None:
    with agent.peer() as peer:
        answer = peer._request("GET", path)
        assert answer.status == 404
        assert b"not served" in answer.read()


def test_keep_only_removes_the_rest_and_what_is_not_sealed(mine: Path) -> None:
    kept = saved(mine, NEW, 0)
    saved(mine, OLD, 0)
    generations.folder(mine, NEW, 1).mkdir()
    generations.keep_only(mine, NEW)
    assert generations.generations(mine) == [NEW]
    assert generations.read_shards(mine, NEW, 0) == kept
    assert not generations.folder(mine, NEW, 1).exists()
    generations.keep_only(mine, None)
    assert generations.generations(mine) == []


def test_unsealed_needs_every_worker(mine: Path) -> None:
    place = generations.folder(mine, NEW, 0)
    place.mkdir(parents=True)
    generations.write(generations.header_path(place, 0), "{}")
    assert list(generations.unsealed(mine, 0, workers=2)) == []
    generations.write(generations.header_path(place, 1), "{}")
    assert list(generations.unsealed(mine, 0, workers=2)) == [NEW]
    generations.seal(mine, NEW, 0, nodes=1)
    assert list(generations.unsealed(mine, 0, workers=2)) == []


def test_full_with_two_generations_of_its_own_and_with_three_where_each_step_is_saved(
    mine: Path,
) -> None:
    saved(mine, NEW, 0)
    saved(mine, OLD, 1)
    assert not generations.is_full(mine, 0, interval=2)
    saved(mine, OLD, 0)
    assert generations.is_full(mine, 0, interval=2)
    assert not generations.is_full(mine, 0, interval=1)
    saved(mine, Generation(OLD.round, OLD.step + 1), 0)
    assert generations.is_full(mine, 0, interval=1)
