"""Recovery of three systems from the same faults: `make bench-recovery`.

python -m hack.bench --faults worker-kill,hang --systems ours,elastic --repetitions 2
python -m hack.bench --resume --minutes 9     # goes on; starts no trial after 9 minutes
python -m hack.bench --report                 # only writes the report anew
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from hack.demo.kube import StepError, wait_for
from hack.demo.scenario import ROOT
from tests.cluster import ClusterError

from . import faults, ground, measure, record, report, trials, versions
from .ground import DIRECTORY, Ground
from .logs import Logs
from .measure import Event, Phases
from .record import Outcome
from .systems import System, system
from .trials import Trial, Turn

TRIALS_FILE = ROOT / "docs" / "recovery-trials.jsonl"  # kept: five repetitions take hours
REPORT_FILE = DIRECTORY / "recovery.json"
LOGS = DIRECTORY / "logs"  # of the pods, up to the end of each trial
PAGE = ROOT / "docs" / "benchmarks.md"
STEADY_STEPS = 12  # since the last recovery, before the next fault
RECOVERY_SECONDS = 600.0  # then a trial has failed, which is a result


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Bench:
    """Runs trials on a prepared ground until all are done, or the time is over."""

    def __init__(self, place: Ground, logs: Logs, is_over: Callable[[], bool]) -> None:
        self._ground, self._logs, self._is_over = place, logs, is_over
        self._systems: dict[str, System] = {}

    def run(self, turns: tuple[Turn, ...]) -> None:
        self._ground.watch.patch({"suspend": True})
        for turn in turns:
            if self._is_over():
                say("the time is over: go on with --resume")
                return
            self._take(turn)

    def _take(self, turn: Turn) -> None:
        say(f"{turn.system} starts, {turn.setup}")
        chosen = self._system(turn.system)
        chosen.start(turn.setup)
        try:
            for trial in turn.trials:
                if self._is_over():
                    return
                if not self._measure(chosen, trial):
                    return  # it is in no known state: the next turn starts afresh
        finally:
            chosen.stop()

    def _system(self, name: str) -> System:
        if name not in self._systems:
            self._systems[name] = system(name, self._ground, self._logs)
        return self._systems[name]

    def _measure(self, chosen: System, trial: Trial) -> bool:
        try:
            outcome = self._outcome(chosen, trial)
        except StepError as error:
            say(f"{trial}: {error}")
            outcome = Outcome(trial, failure=str(error))
        self._keep_log(trial)
        record.append(TRIALS_FILE, replace(outcome, commit=versions.commit()))
        return outcome.phases is not None

    def _keep_log(self, trial: Trial) -> None:
        """What the pods said last: where the time went."""
        LOGS.mkdir(exist_ok=True)
        lines = self._logs.last_lines(f"{trial.system}-")
        name = f"{trial.fault}-{trial.system}-{trial.repetition}.log"
        (LOGS / name).write_text("\n".join(lines) + "\n")

    def _outcome(self, chosen: System, trial: Trial) -> Outcome:
        self._await_steady(chosen)
        pod = chosen.victim(trial.victim)
        with faults.armed(trial.fault, pod, self._ground.kube, self._ground.cluster) as fire:
            step_seconds = self._await_moment(chosen, trial)
            at = fire()
            say(f"{trial.fault} hit {pod.name} on {pod.node}")
            phases = self._await_recovery(chosen, at)
        say(f"{trial.system}: new step after {phases.total_seconds:.2f} s: {phases}")
        return Outcome(trial, phases, step_seconds=round(step_seconds, 3))

    def _await_steady(self, chosen: System) -> None:
        wait_for(
            f"{chosen.name} to be whole",
            lambda: True if chosen.is_whole() and self._recent_steps(chosen) else None,
            timeout_seconds=300,
            interval_seconds=1,
        )

    def _recent_steps(self, chosen: System) -> list[Event]:
        """Those since the last start; none until there are enough, or if they have ceased."""
        found = measure.steps_since_start(chosen.events())
        is_moving = found and time.time() - found[-1].time < 3
        return found if is_moving and len(found) >= STEADY_STEPS else []

    def _await_moment(self, chosen: System, trial: Trial) -> float:
        """Returns at the trial's moment between two checkpoints, with the median step time."""
        offset = trials.offset_steps(trial, self._ground.interval)
        found: list[Event] = []

        def is_there() -> bool:
            nonlocal found
            found = measure.steps_since_start(chosen.events())
            is_new = bool(found) and time.time() - found[-1].time < 0.3
            return is_new and (found[-1].step or 0) % self._ground.interval == int(offset)

        if not self._logs.wait(is_there, 60):
            raise StepError(f"{chosen.name}: no step was seen at the moment of the fault")
        times = [event.time for event in found[-STEADY_STEPS:]]
        step_seconds = median(b - a for a, b in itertools.pairwise(times))
        time.sleep(max(0.0, times[-1] + offset % 1 * step_seconds - time.time()))
        return step_seconds

    def _await_recovery(self, chosen: System, fault_at: float) -> Phases:
        def is_over() -> bool:
            return measure.phases(chosen.events(), fault_at) is not None

        if not self._logs.wait(is_over, RECOVERY_SECONDS):
            raise StepError(f"no new step within {RECOVERY_SECONDS:.0f} s of the fault")
        found = measure.phases(chosen.events(), fault_at)
        assert found
        return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--faults", default=",".join(trials.FAULTS))
    parser.add_argument("--systems", default=",".join(trials.SYSTEMS))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--resume", action="store_true", help="keep what there is, failures too")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then no new trial")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    for field, known in (("faults", trials.FAULTS), ("systems", trials.SYSTEMS)):
        names = getattr(options, field).split(",")
        if unknown := sorted(set(names) - set(known)):
            parser.error(f"--{field}: {', '.join(unknown)} is not one of {', '.join(known)}")
        setattr(options, field, names)
    if options.repetitions < 1:
        parser.error(f"--repetitions is {options.repetitions}: must be 1 or more")
    return options


def write_report(trials_file: Path = TRIALS_FILE) -> None:
    outcomes = record.read(trials_file)
    if not outcomes:
        raise StepError(f"nothing was measured: {trials_file} is not there")
    steps = [o.step_seconds for o in outcomes if o.step_seconds]
    environment = versions.environment() | {
        "step": f"{median(steps):.2f} s (median)",
        "commit": ", ".join(dict.fromkeys(o.commit for o in outcomes if o.commit)),
    }
    document = report.document(outcomes, environment, [asdict(o) for o in outcomes])
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    REPORT_FILE.write_text(json.dumps(document, indent=2) + "\n")
    generated = report.markdown(document)
    PAGE.write_text(report.page(PAGE.read_text(), generated))
    print(generated)
    say(f"wrote {REPORT_FILE} and {PAGE}")


def run(options: argparse.Namespace) -> None:
    ends_at = time.monotonic() + 60 * options.minutes
    if not options.resume:
        TRIALS_FILE.unlink(missing_ok=True)
    done = {outcome.trial for outcome in record.read(TRIALS_FILE)}
    wanted = trials.wanted(options.faults, options.systems, options.repetitions)
    turns = trials.turns(wanted, done)
    if not turns:
        return
    say(f"{sum(len(turn.trials) for turn in turns)} trials are left; preparing the cluster")
    with ground.prepared() as place, Logs(place.node_logs, place.watch.namespace) as logs:
        Bench(place, logs, lambda: time.monotonic() > ends_at).run(turns)


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # takes the cluster down, too
    try:
        if not options.report:
            run(options)
        write_report()
    except (StepError, ClusterError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
