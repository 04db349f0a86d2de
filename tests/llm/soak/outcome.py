"""What a run came to, step by step, and how it differs from the one that nothing struck. Pure."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from pretrain_llm.contract.status import Incident
from pretrain_operator import evidence, faults
from pretrain_operator.api.status import RunStatus
from pretrain_operator.case import Case
from pretrain_operator.observed import ObjectKey, Observed

from .schedule import Strike


@dataclass(frozen=True)
class Line:
    """A step as one rank trained it once."""

    rank: int
    round: int
    step: int
    loss: float  # of the global batch, to the last bit
    samples: tuple[int, ...]  # their positions in the run's order


@dataclass(frozen=True)
class Outcome:
    lines: tuple[Line, ...]
    incidents: tuple[Incident, ...] = ()

    @property
    def losses(self) -> dict[int, float]:
        """By step, as trained last."""
        return {line.step: line.loss for line in sorted(self.lines, key=lambda line: line.round)}

    @property
    def uses(self) -> Counter[int]:
        """Of each sample, by the steps that count: those trained last."""
        ordered = sorted(self.lines, key=lambda line: line.round)
        last = {(line.rank, line.step): line for line in ordered}
        return Counter(sample for line in last.values() for sample in line.samples)

    @property
    def replayed_steps(self) -> int:
        return sum(line.rank == 0 for line in self.lines) - len(self.losses)


@dataclass(frozen=True)
class Comparison:
    """Of a struck run with the plain one; `differences` are words, none where there is none."""

    max_loss_difference: float  # of any step, also of those that were lost and trained again
    samples_used: int
    differences: tuple[str, ...] = field(default=())


def line(rank: int, text: str) -> Line:
    told = json.loads(text)
    loss = float.fromhex(told["loss"])
    return Line(rank, told["round"], told["step"], loss, tuple(told["samples"]))


def comparison(plain: Outcome, struck: Outcome, samples: int) -> Comparison:
    """`samples` is how many the whole run must use, each once."""
    expected, uses = plain.losses, struck.uses
    unlike = sorted({line.step for line in struck.lines if line.loss != expected.get(line.step)})
    missing = sorted(expected.keys() - struck.losses.keys())
    found = []
    if unlike:
        found.append(f"the losses of {len(unlike)} steps differ, first of step {unlike[0]}")
    if missing:
        found.append(f"{len(missing)} steps are missing, first step {missing[0]}")
    if wrong := Counter(range(samples)) - uses:
        found.append(f"{len(wrong)} samples were not used, first sample {min(wrong)}")
    if wrong := uses - Counter(range(samples)):
        found.append(f"{len(wrong)} samples were used too often, first sample {min(wrong)}")
    return Comparison(_max_difference(expected, struck.lines), uses.total(), tuple(found))


def _max_difference(expected: Mapping[int, float], lines: Iterable[Line]) -> float:
    pairs = ((line.loss, expected.get(line.step, math.inf)) for line in lines)
    return max((abs(loss - known) for loss, known in pairs), default=math.inf)


def fault_class(incident: Incident, earlier: Sequence[Incident]) -> str:
    """The operator's verdict, of a pod and a node that look well."""
    pod = ObjectKey("Pod", incident.agent or "")
    known = Observed(now=0.0, objects={pod: {"metadata": {"name": pod.name}, "status": {}}})
    run = SimpleNamespace(status=RunStatus())
    case = Case(cast(Any, run), spec=cast(Any, None), config=cast(Any, None), observed=known)
    return faults.fault(evidence.of_incident(case, incident, earlier)).row.name


def entry(
    seed: int, in_memory: bool, strikes: Sequence[Strike], struck: Outcome, found: Comparison
) -> dict[str, Any]:
    """One seed's part of the report."""
    incidents = [_shown(item, struck.incidents[:i]) for i, item in enumerate(struck.incidents)]
    return {
        "seed": seed,
        "checkpointsInMemory": in_memory,
        "schedule": [asdict(strike) for strike in strikes],
        "incidents": incidents,
        "stepsLost": sum(item["stepsLost"] or 0 for item in incidents),
        "replayedSteps": struck.replayed_steps,
        "finalLoss": struck.losses[max(struck.losses)],
        "maxLossDifference": found.max_loss_difference,
        "samplesUsed": found.samples_used,
        "differences": list(found.differences),
    }


def _shown(incident: Incident, earlier: Sequence[Incident]) -> dict[str, Any]:
    return {
        "round": incident.round,
        "class": fault_class(incident, earlier),
        "evidence": incident.evidence,
        "agent": incident.agent,
        "step": incident.last_step,
        "resumedStep": incident.resumed_step,
        "restoredFrom": incident.restored_from,
        "stepsLost": incident.steps_lost,
        "detectSeconds": incident.detect_seconds,
        "recoverySeconds": _recovery_seconds(incident),
    }


def _recovery_seconds(incident: Incident) -> float | None:
    """None where another fault came before its first step."""
    parts = (incident.reschedule_seconds, incident.restore_seconds, incident.first_step_seconds)
    known = [part for part in parts if part is not None]
    return round(sum(known), 3) if len(known) == len(parts) else None


def table(told: Mapping[str, Any]) -> str:
    """An entry, to be read."""
    tier = "in memory and on the volume" if told["checkpointsInMemory"] else "on the volume"
    rows = [f"seed {told['seed']}: checkpoints {tier}", "", "  step  struck by"]
    for strike in told["schedule"]:
        seconds = strike["after_seconds"]
        when = f"{strike['step']:>6}" if seconds is None else f"{f'+{seconds} s':>6}"
        rows.append(f"{when}  {strike['kind']}, node {strike['member']}")
    rows += ["", " round  class                step  resumed  lost  from        detect  recovery"]
    rows += [_row(item) for item in told["incidents"]]
    return "\n".join([*rows, "", _summary(told)])


def _row(item: Mapping[str, Any]) -> str:
    steps = f"{item['step']:>6}{_cell(item['resumedStep'], 9)}{_cell(item['stepsLost'], 6)}"
    seconds = f"{_cell(item['detectSeconds'], 7)}{_cell(item['recoverySeconds'], 10)}"
    return (
        f"{item['round']:>6}  {item['class']:<19}{steps}  {item['restoredFrom'] or '':<11}{seconds}"
    )


def _summary(told: Mapping[str, Any]) -> str:
    verdict = "; ".join(told["differences"]) or "as the run that nothing struck"
    return (
        f"  {len(told['incidents'])} incidents, {told['stepsLost']} steps lost, "
        f"{told['replayedSteps']} run again, {told['samplesUsed']} samples used, "
        f"final loss {told['finalLoss']:.6f}, largest difference "
        f"{told['maxLossDifference']:g}: {verdict}"
    )


def _cell(value: float | None, width: int) -> str:
    """A dash where another fault came first."""
    if value is None:
        return f"{'-':>{width}}"
    return f"{value:>{width}}" if isinstance(value, int) else f"{value:>{width}.1f}"
