"""Events on their way to the coordinator: numbered, sent again until acknowledged, bounded. Pure.

A full outbox (hours without a coordinator) drops its oldest steps; faults and checkpoints stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..contract.protocol import MAX_EVENTS, AgentEvent

CAPACITY = 20_000  # events


@dataclass(frozen=True)
class Outbox:
    first: int = 0  # number of events[0]
    events: tuple[AgentEvent, ...] = ()
    capacity: int = CAPACITY


def with_event(outbox: Outbox, event: AgentEvent) -> Outbox:
    """Numbers stay consecutive: where an event is dropped, those before it move up by one."""
    events = (*outbox.events, event)
    if len(events) <= outbox.capacity:
        return replace(outbox, events=events)
    oldest = next((i for i, e in enumerate(events) if e.worker and e.worker.step), 0)
    kept = events[:oldest] + events[oldest + 1 :]
    return replace(outbox, first=outbox.first + 1, events=kept)


def without_acknowledged(outbox: Outbox, acknowledged: int) -> Outbox:
    """Without the events before number `acknowledged`."""
    told = min(len(outbox.events), max(0, acknowledged - outbox.first))
    return replace(outbox, first=outbox.first + told, events=outbox.events[told:])


def next_batch(outbox: Outbox) -> tuple[AgentEvent, ...]:
    return outbox.events[:MAX_EVENTS]
