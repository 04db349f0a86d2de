"""Checkpoints in memory: what agents hold of them, and what a new round starts from."""

from __future__ import annotations

from dataclasses import dataclass

from .manifests import FileEntry

GENERATION_PATH = (
    "/generations"  # of an agent's memory server, below it <round>-<step>/<rank>/<file>
)
TOKEN_HEADER = "X-Pretrain-Token"  # noqa: S105  its name
CHECKSUM_HEADER = "X-Pretrain-Sha256"


@dataclass(frozen=True, order=True)
class Generation:
    """One checkpoint in memory. The same step of two rounds is not the same checkpoint."""

    round: int
    step: int

    def __str__(self) -> str:
        return f"{self.round}-{self.step}"


def parsed(text: str) -> Generation | None:
    """`<round>-<step>` as a Generation; None where it is none."""
    round_text, _, step_text = text.partition("-")
    if not (round_text.isdecimal() and step_text.isdecimal()):
        return None
    return Generation(int(round_text), int(step_text))


@dataclass(frozen=True)
class Shards:
    """The manifest of what one node's workers saved of a generation: written last."""

    generation: Generation
    rank: int  # of the node in the round that saved it
    nodes: int  # of that round
    files: tuple[FileEntry, ...]

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.files)


@dataclass(frozen=True)
class Holding:
    """One node's shards of a generation, whole, in the memory of the agent that says so."""

    generation: Generation
    rank: int
    nodes: int
    bytes: int


@dataclass(frozen=True)
class MemoryStanding:
    """What an agent holds, for its reports."""

    address: str  # host:port at which other agents reach its memory
    holdings: tuple[Holding, ...] = ()
    problem: str | None = None  # why its newest shards have no copy, in words


@dataclass(frozen=True)
class Restore:
    """What a round's workers start from, if all of them can; else from the volume."""

    generation: Generation
    sources: tuple[str, ...]  # by node rank: whom to fetch from; empty: it holds its shards itself


@dataclass(frozen=True)
class MemoryView:
    """What a round's agents hear about memory."""

    addresses: tuple[str, ...] = ()  # by node rank; empty: unknown
    restore: Restore | None = None
    safe: Generation | None = None  # older ones are needed no more
