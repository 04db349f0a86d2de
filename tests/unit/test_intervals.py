"""How often to save: Daly's formula, what interruptions say of the next one, and the bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrain_llm.contract.config import CheckpointConfig
from pretrain_llm.contract.intervals import (
    DEVICE_HOURS_PER_INTERRUPTION,
    SaveCost,
    daly_interval_seconds,
    device_hours_per_interruption,
    interval_steps,
)


# Daly 2006, eq. 37, evaluated by hand: sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + d / 18M) - d
@pytest.mark.parametrize(
    ("stall", "mtbf", "interval"),
    [(2.0, 100.0, 18.0 + 0.68888889), (2.0, 10_000.0, 198.66888889), (8.0, 4.0, 4.0)],
)
def test_daly_interval_is_that_of_equation_37(stall: float, mtbf: float, interval: float) -> None:
    assert daly_interval_seconds(stall, mtbf) == pytest.approx(interval, rel=1e-8)


@pytest.mark.parametrize(("stall", "mtbf"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_daly_interval_of_nonsense_is_refused(stall: float, mtbf: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        daly_interval_seconds(stall, mtbf)


PRIOR = DEVICE_HOURS_PER_INTERRUPTION


@pytest.mark.parametrize(
    ("interruptions", "device_hours", "expected"),
    [
        pytest.param(0, 0.0, PRIOR, id="nothing seen: the prior"),
        pytest.param(0, 1e6, PRIOR, id="quiet for long: no better than the best published"),
        pytest.param(1, 0.0, PRIOR / 11, id="the first one outweighs the prior"),
        pytest.param(100, 6_400.0, (0.1 * PRIOR + 6_400) / 100.1, id="many: what was seen"),
        pytest.param(10, 10 * PRIOR, PRIOR, id="as often as the prior says"),
    ],
)
def test_device_hours_per_interruption_follow_what_the_run_sees(
    interruptions: int, device_hours: float, expected: float
) -> None:
    found = device_hours_per_interruption(interruptions, device_hours)
    assert found == pytest.approx(expected)


AUTO = CheckpointConfig(keep_latest=2, min_interval=10, max_interval=10_000)
COST = SaveCost(stall_seconds=2.0)
MTBF_SECONDS = 10_000.0  # Daly: 198.7 s


@pytest.mark.parametrize(
    ("policy", "cost", "expected"),
    [
        pytest.param(replace(AUTO, interval=7), COST, 7, id="the spec's number"),
        pytest.param(AUTO, None, 10, id="no save measured yet: the shortest"),
        pytest.param(AUTO, COST, 397, id="Daly's"),
        pytest.param(AUTO, SaveCost(1.0, dip_seconds=1.0), 397, id="a dip costs like a stall"),
        pytest.param(AUTO, SaveCost(0.0), 10, id="saves that cost nothing: often"),
        pytest.param(AUTO, SaveCost(0.1, save_seconds=600), 1200, id="no shorter than a save"),
        pytest.param(AUTO, SaveCost(50.0), 5000, id="a stall of at most 2 %"),
        pytest.param(replace(AUTO, min_interval=500), COST, 500, id="lower bound"),
        pytest.param(replace(AUTO, max_interval=100), COST, 100, id="upper bound"),
    ],
)
def test_interval_in_steps(policy: CheckpointConfig, cost: SaveCost | None, expected: int) -> None:
    assert interval_steps(policy, cost, 0.5, MTBF_SECONDS) == expected


def test_interval_shortens_as_interruptions_come() -> None:
    hours = [device_hours_per_interruption(count, 640.0) for count in range(20)]
    steps = [interval_steps(AUTO, COST, 1.0, 3600 * found / 64) for found in hours]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > 2 * steps[1]
