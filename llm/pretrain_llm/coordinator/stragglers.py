"""Which ranks compute slower than the others. Pure.

Ranks that train together finish a step together: a slow one shows only in the time that it computes
by itself (training/own_time.py). A rank's figure is its median over a window; its score is how far
it lies above the other ranks', in robust sigmas (1.4826 x MAD, Iglewicz and Hoaglin 1993). Low
medians, and a sigma of at least 5 %, so that it also works with two ranks, and so that ranks which
are all but equal are not told apart by noise: a rank less than zScore x 5 % slower is never named.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..contract.reports import OwnTimeReport, WorkerReport
from ..contract.status import Straggler

SHOWN = 8
_SIGMAS_PER_MAD = 1.4826  # of a normal distribution
_LEAST_SIGMA = 0.05  # of the median


@dataclass(frozen=True)
class StragglerPolicy:
    """spec.recovery.stragglers."""

    z_score: float = 4.0
    window_steps: int = 50


@dataclass(frozen=True)
class Timed:
    """What one rank of a round has told, the newest last."""

    agent: str
    steps: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True)
class OwnTimes:
    """Of one round."""

    round: int = 0
    by_rank: Mapping[int, Timed] = field(default_factory=dict)  # never changed in place


def timed(
    times: OwnTimes,
    policy: StragglerPolicy,
    report: WorkerReport,
    agent: str,
    told: OwnTimeReport,
) -> OwnTimes:
    """With one more report; a new round begins anew, because ranks may be elsewhere."""
    if report.round < times.round:
        return times
    if report.round > times.round:
        times = OwnTimes(report.round)
    known = times.by_rank.get(report.rank, Timed(agent))
    kept = sum(step > told.step - policy.window_steps for step in known.steps)
    steps = (*known.steps[len(known.steps) - kept :], told.step)
    seconds = (*known.seconds[len(known.seconds) - kept :], told.seconds)
    return replace(times, by_rank={**times.by_rank, report.rank: Timed(agent, steps, seconds)})


def stragglers(
    times: OwnTimes, policy: StragglerPolicy, nodes: Mapping[str, str]
) -> tuple[Straggler, ...]:
    """The slowest first, bounded; none before every rank's window is full. `nodes`: by agent."""
    if not all(_is_full(timed, policy) for timed in times.by_rank.values()):
        return ()
    medians = {rank: statistics.median(timed.seconds) for rank, timed in times.by_rank.items()}
    scores = scores_of(medians)
    slow = sorted(
        (rank for rank in scores if scores[rank] >= policy.z_score), key=lambda rank: scores[rank]
    )
    middle = statistics.median_low(medians.values()) if medians else 0.0
    return tuple(
        Straggler(
            rank=rank,
            agent=times.by_rank[rank].agent,
            node=nodes.get(times.by_rank[rank].agent, ""),
            z_score=round(scores[rank], 1),
            own_seconds=medians[rank],
            median_seconds=middle,
        )
        for rank in reversed(slow)
    )[:SHOWN]


def scores_of(seconds: Mapping[int, float]) -> dict[int, float]:
    """By rank; none where there is nobody to compare with."""
    if len(seconds) < 2:
        return {}
    middle = statistics.median_low(seconds.values())
    deviation = statistics.median_low(abs(value - middle) for value in seconds.values())
    sigma = max(_SIGMAS_PER_MAD * deviation, _LEAST_SIGMA * middle)
    return {rank: (value - middle) / sigma for rank, value in seconds.items()} if sigma else {}


def _is_full(timed: Timed, policy: StragglerPolicy) -> bool:
    """Its reports reach back over the window, to within one report."""
    if len(timed.steps) < 2:
        return False
    between = timed.steps[-1] - timed.steps[-2]
    return timed.steps[-1] - timed.steps[0] + between >= policy.window_steps
