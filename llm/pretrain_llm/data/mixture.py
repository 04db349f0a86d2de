"""Which source a sample comes from: a pure function of (weights, seed, position).

Positions are cut into blocks. In each block every source has its share of the slots, exactly, in an
order of the block's own; so the mix holds from the first step on, and how many samples of a source
came before a position needs no counting: the state is the position.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from .permutation import mixed, permuted

BLOCK = (
    1 << 16
)  # slots; a weight is rounded to the nearest 1/65,536 of the whole, one slot at least


class Mixture:
    def __init__(self, weights: Sequence[float], *, seed: int) -> None:
        """One positive weight a source; only their proportions matter."""
        self._slots = slots(weights)
        self._ends = list(accumulate(self._slots))
        self._key = mixed(seed)

    def place(self, position: int) -> tuple[int, int]:
        """(Number of the source, how many samples of it came before) at a position."""
        block, slot = divmod(position, BLOCK)
        shuffled = permuted(slot, BLOCK, key=mixed(self._key ^ block))
        source = bisect_right(self._ends, shuffled)
        start = self._ends[source] - self._slots[source]
        return source, block * self._slots[source] + shuffled - start


def slots(weights: Sequence[float]) -> list[int]:
    """A block's slots for each weight; they sum to BLOCK. By largest remainders, one at least."""
    spare = BLOCK - len(weights)
    exact = [spare * weight / sum(weights) for weight in weights]
    whole = [int(share) for share in exact]
    order = sorted(range(len(weights)), key=lambda number: whole[number] - exact[number])
    extra = set(order[: spare - sum(whole)])
    return [1 + share + (number in extra) for number, share in enumerate(whole)]
