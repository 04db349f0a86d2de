"""What the bench's report says of a few measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hack.bench import report
from hack.bench.measure import Phases
from hack.bench.record import Outcome
from hack.bench.trials import (
    HANG,
    KILL,
    OURS,
    POWER_OFF,
    POWER_OFF_NO_SPARE,
    POWER_OFF_PATIENT,
    RECREATE,
    Trial,
)


def outcome(fault: str, system: str, repetition: int, seconds: float) -> Outcome:
    """All of it in the restore, but for a first step of 1 s."""
    phases = Phases(0.0, 0.0, seconds - 1, 1.0, 0.0, steps_replayed=1)
    return Outcome(Trial(fault, system, repetition), phases)


OUTCOMES = [
    *(outcome(KILL, OURS, n, seconds) for n, seconds in enumerate((2.0, 3.0, 7.0))),
    *(outcome(KILL, RECREATE, n, seconds) for n, seconds in enumerate((31.0, 29.0, 30.0))),
    outcome(POWER_OFF, OURS, 0, 6.0),
    outcome(POWER_OFF_NO_SPARE, OURS, 0, 25.0),
    outcome(POWER_OFF, RECREATE, 0, 300.0),
    outcome(POWER_OFF_PATIENT, RECREATE, 0, 330.0),
    Outcome(Trial(HANG, OURS, 0), failure="no new step within 900 s"),
]


def made() -> dict[str, Any]:
    return report.document(OUTCOMES, {"machine": "2 × Some CPU"}, [])


def test_summary_has_median_and_range() -> None:
    found = made()["summary"][KILL][OURS]
    assert found["fault → new step"] == {"median": 3.0, "min": 2.0, "max": 7.0}
    assert found["measured"] == 3


def test_peers_loss_of_a_node_stands_in_both_tables() -> None:
    found = made()["summary"]
    assert found[POWER_OFF][RECREATE] == found[POWER_OFF_NO_SPARE][RECREATE]


def test_targets_are_judged_by_the_medians() -> None:
    verdicts = {item["target"]: (item["measured"], item["met"]) for item in made()["targets"]}
    assert verdicts == {
        "worker kill: times faster than whole-job recreate": (10.0, True),
        "power-off with a spare: times faster than whole-job recreate": (50.0, True),
        "the same, where tolerations decide: its collectives wait 600 s": (55.0, True),
        "power-off with a spare: seconds to the next step": (6.0, False),
    }


def test_page_shows_medians_ranges_factors_and_failures() -> None:
    page = report.markdown(made())
    assert "machine: 2 × Some CPU." in page
    assert "| pretrain-operator | 3 |" in page
    assert "| 3 (2–7) |" in page
    assert "| 10.0× |" in page
    assert "0, 1 failed" in page
    assert "| power-off with a spare: seconds to the next step | ≤ 5 | 6 | **not met** |" in page


def test_generated_part_of_a_page_is_replaced_and_the_rest_stays() -> None:
    generated = report.markdown(made())
    page = f"# Title\n{report.BEGIN}\nold\n{report.END}\nrest\n"
    assert report.page(page, generated) == f"# Title\n{generated}rest\n"
    assert report.page(report.page(page, generated), generated) == report.page(page, generated)
    with pytest.raises(ValueError, match="the page has no"):
        report.page("# Title\n", generated)


def test_page_in_docs_has_a_place_for_the_tables() -> None:
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    assert "| 10.0× |" in report.page(text, report.markdown(made()))
