"""How often to save, and what faults and saves cost. Pure arithmetic, times in seconds."""

from __future__ import annotations

import math


def daly_interval_seconds(stall_seconds: float, mtbf_seconds: float) -> float:
    """Time between checkpoints that loses least.

    Source: Daly 2006 (A higher order estimate of the optimum checkpoint interval), eq. 37. Raises
    ValueError unless both are positive.
    """
    if not (stall_seconds > 0 and mtbf_seconds > 0):
        raise ValueError(f"stall {stall_seconds} s and MTBF {mtbf_seconds} s must be positive")
    if stall_seconds >= 2 * mtbf_seconds:
        return mtbf_seconds
    ratio = stall_seconds / (2 * mtbf_seconds)
    series = 1 + math.sqrt(ratio) / 3 + ratio / 9
    return math.sqrt(2 * stall_seconds * mtbf_seconds) * series - stall_seconds


def goodput(
    interval_seconds: float, stall_seconds: float, restart_seconds: float, mtbf_seconds: float
) -> float:
    """Productive share of the wall time; 0 where faults leave no progress.

    A save stalls once an interval; an interruption loses, to first order, half an interval and the
    restart.
    """
    saving = interval_seconds / (interval_seconds + stall_seconds)
    lost = (interval_seconds / 2 + restart_seconds) / mtbf_seconds
    return max(0.0, saving - lost)


def stall_seconds(state_bytes: float, bytes_per_second: float) -> float:
    """What one save stalls training: staging of a device's state, at least a second, and the rest.

    An estimate until the run has measured its own.
    """
    return max(1.0, state_bytes / bytes_per_second) + 0.5
