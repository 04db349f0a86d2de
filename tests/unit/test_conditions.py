"""Conditions as the API conventions have them, and docs/states.md as the code has them."""

from __future__ import annotations

import re
from pathlib import Path

from pretrain_operator import conditions
from pretrain_operator.api.status import RunStatus
from pretrain_operator.times import timestamp

from .world import START

STATES_PAGE = Path(__file__).parents[2] / "docs" / "states.md"


def _state(status: RunStatus, state: str, now: float) -> RunStatus:
    return conditions.with_state(status, state, "m", generation=1, now=now)


def test_transition_time_moves_only_with_the_truth_and_state_since_with_the_state():
    first = _state(RunStatus(), conditions.STARTING, START)
    second = _state(first, conditions.TRAINING, START + 10)
    third = _state(second, conditions.COMPLETED, START + 20)
    times = [status.conditions[0].last_transition_time for status in (first, second, third)]
    assert times == [timestamp(START), timestamp(START), timestamp(START + 20)]
    since = [status.state_since for status in (first, second, third)]
    assert since == [timestamp(START), timestamp(START + 10), timestamp(START + 20)]


def test_same_state_again_changes_nothing():
    first = _state(RunStatus(), conditions.TRAINING, START)
    assert _state(first, conditions.TRAINING, START + 99) == first


def test_table_of_states_in_the_docs_is_the_codes():
    page = STATES_PAGE.read_text()
    rows = re.findall(r"^\| `(\w+)` \| (True|False|Unknown) \|", page, re.MULTILINE)
    groups = (
        *conditions.GOING,
        *conditions.WAITING,
        *conditions.REACHED,
        *conditions.STOPPED,
    )
    assert rows == [(state, conditions.truth_of(state)) for state in groups]


def test_table_of_stage_conditions_in_the_docs_is_the_codes():
    page = STATES_PAGE.read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \| stage", page, re.MULTILINE))
    assert rows == {name: kind for kind, name in conditions.STAGE_CONDITIONS.items()}
