"""Pure: from log lines and the time of a fault to the phases of the recovery.

    fault      detected          last round           training        first step      new step
      |--detect--|-------back-------|-----restore-----|--first step--|----replay----|

All systems run the same worker, so the lines that count are the same: torch's elastic agent says
when a rendezvous is complete, torchtitan when training starts and when a step is done. The times
are containerd's, of one machine's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

DETECTED, ROUND, RESTORED, STEP = "detected", "round", "restored", "step"

_LINE = re.compile(r"^(\S+T[\d:]+)(\.\d+)?(Z|[+-]\d\d:\d\d) (?:stdout|stderr) [FP] (.*)$")
_STEP = re.compile(r"(?<!validate )\bstep: +(\d+) +loss:")
_SIGNS = (
    (re.compile(r"Training starts at step (\d+)"), RESTORED),
    (re.compile(r"Rendezvous complete for workers"), ROUND),
    # An agent of torch's, that agent asked to leave, the agent's end; our coordinator.
    (re.compile(r"will restart worker group|death signal|ChildFailedError|Rendezvous\w*Error"
                r"|round \d+ is broken"), DETECTED),
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    time: float
    source: str  # pod
    kind: str
    step: int | None = None  # done; of RESTORED: the first to be done


@dataclass(frozen=True)
class Phases:
    """Seconds; together they are `total_seconds`."""

    detect_seconds: float
    back_seconds: float
    restore_seconds: float
    first_step_seconds: float
    replay_seconds: float
    steps_replayed: int

    @property
    def to_first_step_seconds(self) -> float:
        parts = (self.detect_seconds, self.back_seconds, self.restore_seconds)
        return sum(parts) + self.first_step_seconds

    @property
    def total_seconds(self) -> float:
        """From the fault to the first step beyond all that were done before."""
        return self.to_first_step_seconds + self.replay_seconds


def event(line: str, source: str) -> Event | None:
    """What a line of a container's log says; None: nothing of interest."""
    parsed = _LINE.match(line)
    if parsed is None:
        return None
    whole, fraction, zone, text = parsed.groups()
    if found := _STEP.search(text):
        kind, step = STEP, int(found[1])
    else:
        sign = next(((kind, m) for pattern, kind in _SIGNS if (m := pattern.search(text))), None)
        if sign is None:
            return None
        kind, step = sign[0], int(sign[1][1]) if sign[1].groups() else None
    time = datetime.fromisoformat(whole + (fraction or ".0")[:7].ljust(7, "0") + zone)
    return Event(time.timestamp(), source, kind, step)


def phases(events: Iterable[Event], fault_at: float) -> Phases | None:
    """None until there is a step beyond all that were done before training started again."""
    after = sorted(events, key=lambda e: e.time)
    first_start = next((e for e in after if e.kind == RESTORED and e.time > fault_at), None)
    if first_start is None:
        return None
    furthest = max((e.step or 0 for e in steps(after) if e.time < first_start.time), default=0)
    new = next((e for e in steps(after) if e.time > first_start.time and (e.step or 0) > furthest),
               None)  # fmt: skip
    if new is None:
        return None
    return _between(after, fault_at, new, furthest)


def _between(events: Sequence[Event], fault_at: float, new: Event, furthest: int) -> Phases:
    """Where rounds failed on the way, the last one counts as the one that brought steps back."""
    since = [e for e in events if fault_at < e.time <= new.time]
    start = [e for e in since if e.kind == RESTORED][-1]
    first = next(e for e in since if e.kind == STEP and e.time > start.time)
    rounds = [e.time for e in since if e.kind == ROUND and e.time <= start.time]
    formed_at = rounds[-1] if rounds else start.time
    detected_at = next((e.time for e in since if e.kind == DETECTED), formed_at)
    detected_at = min(detected_at, formed_at)
    return Phases(
        detect_seconds=detected_at - fault_at,
        back_seconds=formed_at - detected_at,
        restore_seconds=start.time - formed_at,
        first_step_seconds=first.time - start.time,
        replay_seconds=new.time - first.time,
        steps_replayed=max(0, furthest - (first.step or 0) + 1),
    )


def steps(events: Iterable[Event]) -> list[Event]:
    return [e for e in events if e.kind == STEP]


def steps_since_start(events: Sequence[Event]) -> list[Event]:
    """Steps since training started last, oldest first."""
    started_at = max((e.time for e in events if e.kind == RESTORED), default=0.0)
    return sorted((e for e in steps(events) if e.time > started_at), key=lambda e: e.time)
