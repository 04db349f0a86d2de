"""When a loss has gone wrong, how far the run goes back, and which batches it skips. Pure.

    checkpoint      onset    seen at
    ─────┴──────────────┴────────┴───►  steps
              └─── skipSteps ────┘      their batches are skipped, from the onset on at least

A worker itself sees a loss or gradient that is not finite. A spike is seen here: a loss above
median + factor x 1.4826 x MAD of the window before it, for several steps in a row. The factor and
window are those of OLMo 2's spike score (arXiv:2501.00656: 7 standard deviations); the median and
MAD take their place because the spike itself must not move them (Iglewicz and Hoaglin 1993).
Going back to before the spike and skipping the batches around it is PaLM's cure
(arXiv:2204.02311, section 5.1: 200 to 500 batches).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..contract.data_steps import DataSteps, SkippedData
from ..contract.status import Rollback

_SIGMAS_PER_MAD = 1.4826  # of a normal distribution
_LEAST_SIGMA = 0.01  # of the median: a very even loss must not make every step a spike


@dataclass(frozen=True)
class LossPolicy:
    """spec.recovery.loss."""

    spike_factor: float = 0.0  # 0: no spikes are looked for
    window_steps: int = 100
    spike_steps: int = 10  # in a row
    skip_steps: int = 100
    max_rollbacks: int = 3


def spike_onset(policy: LossPolicy, losses: Mapping[int, float], step: int) -> int | None:
    """The first step of the spike that is certain with `step`; None: there is none, or not yet."""
    onset = step - policy.spike_steps + 1
    window = [losses.get(number) for number in range(onset - policy.window_steps, onset)]
    spike = [losses.get(number) for number in range(onset, step + 1)]
    known = [loss for loss in window if loss is not None]
    if not policy.spike_factor or len(known) < policy.window_steps:
        return None
    limit = _limit(policy, known)
    return onset if all(loss is not None and loss > limit for loss in spike) else None


def _limit(policy: LossPolicy, losses: list[float]) -> float:
    median = statistics.median(losses)
    deviation = statistics.median(abs(loss - median) for loss in losses)
    sigma = max(_SIGMAS_PER_MAD * deviation, _LEAST_SIGMA * abs(median))
    return median + policy.spike_factor * sigma


def rollback(
    policy: LossPolicy, skipped: SkippedData, saved_steps: Iterable[int], onset: int, seen_at: int
) -> Rollback:
    """What to do about a loss that went wrong from step `onset` and was seen at step `seen_at`.

    Batches before the newest checkpoint that is known to precede the onset stay trained.
    """
    if len(skipped.ranges) >= policy.max_rollbacks:
        return Rollback(onset)
    checkpoint = max((step for step in saved_steps if step < onset), default=onset - 1)
    first = max(checkpoint + 1, min(onset, seen_at - policy.skip_steps + 1))
    batches = DataSteps(skipped.data_step(first - 1), skipped.data_step(seen_at - 1) + 1)
    return Rollback(onset, first, batches)
