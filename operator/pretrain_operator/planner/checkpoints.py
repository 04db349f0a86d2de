"""What faults and saves cost. Pure arithmetic, times in seconds."""

from __future__ import annotations


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
