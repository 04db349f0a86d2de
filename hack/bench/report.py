"""Pure: outcomes of trials -> recovery.json and the generated part of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from . import trials
from .measure import Phases
from .record import Outcome

BEGIN, END = "<!-- begin: make bench-recovery -->", "<!-- end: make bench-recovery -->"

PHASES: dict[str, Callable[[Phases], float]] = {
    "detect": lambda p: p.detect_seconds,
    "back": lambda p: p.back_seconds,
    "restore": lambda p: p.restore_seconds,
    "first step": lambda p: p.first_step_seconds,
    "replay": lambda p: p.replay_seconds,
    "fault → first step": lambda p: p.to_first_step_seconds,
    "fault → new step": lambda p: p.total_seconds,
    "steps replayed": lambda p: p.steps_replayed,
}
_TOTAL = "fault → new step"
_TITLES = {
    trials.KILL: "Worker killed (SIGKILL)",
    trials.HANG: "Worker hangs (SIGSTOP)",
    trials.POD_DELETE: "Pod deleted",
    trials.POWER_OFF: "Node powered off, with a spare (the peers have none)",
    trials.POWER_OFF_NO_SPARE: "Node powered off, without a spare",
    trials.POWER_OFF_PATIENT: "Node powered off, with a spare; the peers' collectives wait 600 s",
}
_NAMES = {
    trials.OURS: "pretrain-operator",
    trials.RECREATE: "whole-job recreate",
    trials.ELASTIC: "torchrun elastic",
}


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Of each fault and system: how many, and the median and the range of each phase."""
    found: dict[str, Any] = {}
    outcomes = list(outcomes)
    for fault in trials.FAULTS:
        for system in trials.SYSTEMS:
            source = trials.measured_fault(fault, system)
            own = [o for o in outcomes if (o.trial.fault, o.trial.system) == (source, system)]
            if own:
                found.setdefault(fault, {})[system] = _of(own)
    return found


def _of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    phases = [outcome.phases for outcome in outcomes if outcome.phases]
    result: dict[str, Any] = {
        "measured": len(phases),
        "failures": [outcome.failure for outcome in outcomes if outcome.failure],
    }
    if phases:
        for name, value in PHASES.items():
            values = [value(each) for each in phases]
            result[name] = {
                key: round(number, 3)
                for key, number in (
                    ("median", median(values)),
                    ("min", min(values)),
                    ("max", max(values)),
                )
            }
    return result


def targets(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The goals of the project, with what was measured; those without measurements are left out."""
    goals = [
        ("worker kill: times faster than whole-job recreate", 10.0, _ratio(found, trials.KILL,
                                                                         trials.RECREATE)),
        ("worker kill: times faster than torchrun elastic", 5.0, _ratio(found, trials.KILL,
                                                                       trials.ELASTIC)),
        ("power-off with a spare: times faster than whole-job recreate", 50.0,
         _ratio(found, trials.POWER_OFF, trials.RECREATE)),
        ("the same, where tolerations decide: its collectives wait 600 s", 50.0,
         _ratio(found, trials.POWER_OFF_PATIENT, trials.RECREATE)),
    ]  # fmt: skip
    limits = [
        ("hang: seconds to detection", 10.0, _median(found, trials.HANG, "detect")),
        ("power-off with a spare: seconds to the next step", 5.0,
         _median(found, trials.POWER_OFF, "fault → first step")),
    ]  # fmt: skip
    return [
        {"target": name, "at_least": goal, "measured": value, "met": value >= goal}
        for name, goal, value in goals
        if value is not None
    ] + [
        {"target": name, "at_most": limit, "measured": value, "met": value <= limit}
        for name, limit, value in limits
        if value is not None
    ]


def _median(
    found: Mapping[str, Any], fault: str, phase: str, system: str = trials.OURS
) -> float | None:
    value = found.get(fault, {}).get(system, {}).get(phase)
    return None if value is None else float(value["median"])


def _ratio(found: Mapping[str, Any], fault: str, peer: str) -> float | None:
    ours, theirs = (_median(found, fault, _TOTAL, name) for name in (trials.OURS, peer))
    return None if ours is None or theirs is None else round(theirs / ours, 1)


def document(
    outcomes: Sequence[Outcome], environment: Mapping[str, Any], records: Sequence[Any]
) -> dict[str, Any]:
    """recovery.json; `records` are the outcomes as they were written."""
    found = summary(outcomes)
    return {
        "environment": dict(environment),
        "summary": found,
        "targets": targets(found),
        "trials": list(records),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The generated part of the page, from recovery.json's content."""
    lines = [BEGIN, *_environment(found["environment"])]
    for fault, systems in found["summary"].items():
        lines += ["", f"### {_TITLES[fault]}", "", *_table(systems)]
    lines += ["", "### Targets", "", *_targets(found["targets"]), END]
    return "\n".join(lines) + "\n"


def _environment(environment: Mapping[str, Any]) -> list[str]:
    return ["; ".join(f"{name}: {value}" for name, value in environment.items()) + "."]


def _table(systems: Mapping[str, Any]) -> list[str]:
    rows = [
        "| system | n | " + " | ".join(PHASES) + " | ours is faster |",
        "|---" * (len(PHASES) + 3) + "|",
    ]
    for system, values in systems.items():
        failures = f", {len(values['failures'])} failed" if values["failures"] else ""
        cells = [_NAMES[system], f"{values['measured']}{failures}"]
        cells += [_cell(values.get(phase)) for phase in PHASES]
        cells.append(_faster(systems, system))
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _cell(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "–"
    shown = {key: f"{number:.3g}" if number < 100 else f"{number:.0f}"
             for key, number in value.items()}  # fmt: skip
    if value["min"] == value["max"]:
        return shown["median"]
    return f"{shown['median']} ({shown['min']}–{shown['max']})"


def _faster(systems: Mapping[str, Any], system: str) -> str:
    medians = [systems.get(name, {}).get(_TOTAL) for name in (trials.OURS, system)]
    if system == trials.OURS or None in medians:
        return ""
    ours, theirs = (item["median"] for item in medians if item)
    return f"{theirs / ours:.1f}×"


def _targets(found: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = ["| target | goal | measured | |", "|---|---|---|---|"]
    for item in found:
        goal = f"≥ {item['at_least']:g}" if "at_least" in item else f"≤ {item['at_most']:g}"
        verdict = "met" if item["met"] else "**not met**"
        rows.append(f"| {item['target']} | {goal} | {item['measured']:.3g} | {verdict} |")
    return rows


def page(text: str, generated: str) -> str:
    """The page with its generated part replaced. Raises ValueError where there is no place."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END + "\n")
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return before + generated + after
