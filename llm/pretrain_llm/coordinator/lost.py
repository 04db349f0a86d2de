"""Members of a broken round that were lost with it: only their silence tells of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..contract.protocol import RUNNING, AgentReport
from .rounds import Agent, State, is_live, is_settled


def lost_members(state: State, now: float) -> Iterator[tuple[str, Agent | None]]:
    """Names of those of the round that ended last, and what is known of them: their leases ended
    while their workers ran, or a new coordinator took that round over and never heard of them.
    """
    ended = state.ended
    if ended is None:
        return
    for name in ended.members:
        agent = state.agents.get(name)
        if agent is None:
            if ended.adopted and is_settled(state, now):
                yield name, None
        elif agent.state == RUNNING and not is_live(agent, state.policy, now):
            yield name, agent


def died_unsaid(state: State, report: AgentReport) -> bool:
    """Whether a member of the broken round comes as another process, and the one before never said
    that it had stopped its workers.
    """
    current, before = state.round, state.agents.get(report.agent)
    if before is None or before.incarnation == report.incarnation or before.state != RUNNING:
        return False
    return bool(current and current.broken and report.agent in current.members)
