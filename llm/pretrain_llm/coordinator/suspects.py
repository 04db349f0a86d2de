"""Which ranks look guilty of a stall, from where each rank's worker stood. Pure; a suspicion only.

In a hang nearly all ranks wait for one: the rank that stands elsewhere is the suspect. The rules
are tried in order, and the first that finds anybody names them:

stopped    the process is stopped (SIGSTOP, a debugger)
silent     it gave no stack: stuck in the kernel, or it ended
outside    it is not in a collective, and others wait in one
elsewhere  more than half stand in one place, and it does not
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ..contract.reports import StackReport
from ..contract.status import Suspicion

SHOWN = 4  # suspects in an incident
SHOWN_FRAMES = 3  # of each
_INNERMOST = 4  # frames that tell whether a rank waits in a collective
_COLLECTIVES = "torch/distributed/"

Stacks = Sequence[StackReport]


def suspicions(stacks: Stacks) -> tuple[Suspicion, ...]:
    """The suspects by rank, at most SHOWN; none where all stand alike, or no two do."""
    ordered = sorted(stacks, key=lambda stack: stack.rank)
    for rule, words in _RULES:
        if found := rule(ordered):
            return tuple(
                Suspicion(stack.rank, words.format(stack.state), stack.frames[:SHOWN_FRAMES])
                for stack in found[:SHOWN]
            )
    return ()


def _stopped(stacks: Stacks) -> list[StackReport]:
    return [stack for stack in stacks if stack.state in ("T", "t")]


def _silent(stacks: Stacks) -> list[StackReport]:
    return [stack for stack in stacks if not stack.frames]


def _outside(stacks: Stacks) -> list[StackReport]:
    found = [stack for stack in stacks if not _is_in_collective(stack)]
    return found if len(found) < len(stacks) else []


def _elsewhere(stacks: Stacks) -> list[StackReport]:
    if not stacks:
        return []
    place, count = Counter(stack.frames for stack in stacks).most_common(1)[0]
    return [stack for stack in stacks if stack.frames != place] if 2 * count > len(stacks) else []


def _is_in_collective(stack: StackReport) -> bool:
    return any(_COLLECTIVES in frame for frame in stack.frames[:_INNERMOST])


_RULES: tuple[tuple[Callable[[Stacks], list[StackReport]], str], ...] = (
    (_stopped, "its process is stopped"),
    (_silent, "it gave no stack (process state {})"),
    (_outside, "it is not in the collective that others wait in"),
    (_elsewhere, "it stands elsewhere than most"),
)
