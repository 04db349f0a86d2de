"""Which checkpoint in memory a round starts from, and which ones are needed no more. Pure.

A generation can be restored when live agents hold every node's shards of it, wherever they are. It
is safe when each node's shards are held twice: then any one node may be lost, and what is older can
go. A run of one node has nobody to hold a copy: its own shards must do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..contract.memory import Generation, MemoryStanding, MemoryView, Restore

Standings = Mapping[str, MemoryStanding]  # by agent
Holders = Mapping[int, list[str]]  # names of the agents that hold a node rank's shards


def restore(
    standings: Standings, members: tuple[str, ...], saved_step: int, *, is_barren: bool
) -> Restore | None:
    """What the round of `members` starts from; None: from the volume.

    `standings`: of live agents only. `saved_step`: of the newest checkpoint on the volume, which is
    the truth: an older one in memory is not used. `is_barren`: the last round made no step of
    progress; what it started from may be why.
    """
    nodes = len(members)
    if is_barren:
        return None
    for generation, holders in _newest_first(standings, nodes):
        if len(holders) == nodes:
            if generation.step < saved_step:
                return None
            sources = tuple(
                "" if name in holders[rank] else standings[min(holders[rank])].address
                for rank, name in enumerate(members)
            )
            return Restore(generation, sources)
    return None


def safe(standings: Standings, nodes: int) -> Generation | None:
    """The newest generation that survives the loss of any one of `nodes` nodes."""
    copies = min(2, nodes)
    for generation, holders in _newest_first(standings, nodes):
        if len(holders) == nodes and all(len(names) >= copies for names in holders.values()):
            return generation
    return None


def size_bytes(standings: Standings, generation: Generation) -> int:
    """Of all nodes' shards, each counted once."""
    sizes = {
        holding.rank: holding.bytes
        for standing in standings.values()
        for holding in standing.holdings
        if holding.generation == generation
    }
    return sum(sizes.values())


def problem(standings: Standings) -> str | None:
    """The first agent's problem, by name."""
    told = ((name, standing.problem) for name, standing in sorted(standings.items()))
    return next((f"{name}: {words}" for name, words in told if words), None)


def view(
    standings: Standings,
    members: tuple[str, ...],
    restored: Restore | None,
    safe_generation: Generation | None,
) -> MemoryView:
    addresses = tuple(standings[name].address if name in standings else "" for name in members)
    return MemoryView(addresses if any(addresses) else (), restored, safe_generation)


def _newest_first(standings: Standings, nodes: int) -> Iterator[tuple[Generation, Holders]]:
    """Generations of a world of `nodes` nodes, with who holds which rank's shards."""
    found: dict[Generation, dict[int, list[str]]] = {}
    for name, standing in standings.items():
        for holding in standing.holdings:
            if holding.nodes == nodes and holding.rank < nodes:
                ranks = found.setdefault(holding.generation, {})
                ranks.setdefault(holding.rank, []).append(name)
    yield from sorted(found.items(), reverse=True, key=lambda pair: pair[0])
