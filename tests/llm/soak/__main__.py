"""`make soak`: runs under seeded random faults end as the run without any, to the last bit.

    make soak                          seeds 1 to 3: build/soak/report.json and report.txt
    make soak SEED=7                   one seed again: the same faults
    make soak ARGS="--steps 1000 --faults 40"

Every second seed keeps checkpoints in memory too. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .outcome import Outcome, comparison, entry, table
from .schedule import Strike, schedule
from .world import Tell, outcome, soak_run

ROOT = Path(__file__).resolve().parents[3]
REPORT = ROOT / "build" / "soak" / "report.json"


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    try:
        schedules = {s: schedule(s, options.steps, options.faults) for s in options.seeds}
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no agent is left behind
    started = time.monotonic()

    def tell(words: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {words}", flush=True)

    tell(f"{options.steps} steps without faults")
    with tempfile.TemporaryDirectory(prefix="soak-") as volume:
        plain = outcome(soak_run(Path(volume), options.steps, in_memory=False))
    soaked = [
        _soaked(seed, plain, options.steps, strikes, tell) for seed, strikes in schedules.items()
    ]
    seconds = round(time.monotonic() - started, 1)
    _write({"steps": options.steps, "seconds": seconds, "runs": soaked})
    return int(any(told["differences"] for told in soaked))


def _soaked(
    seed: int, plain: Outcome, steps: int, strikes: Sequence[Strike], tell: Tell
) -> dict[str, Any]:
    in_memory = seed % 2 == 0
    tell(f"seed {seed}: {len(strikes)} faults over {steps} steps")
    with tempfile.TemporaryDirectory(prefix="soak-") as volume:
        run = soak_run(Path(volume), steps, in_memory=in_memory)
        struck = outcome(run, strikes, tell)
    samples = steps * run.training.global_batch_size
    told = entry(seed, in_memory, strikes, struck, comparison(plain, struck, samples))
    print(table(told), flush=True)
    return told


def _write(report: dict[str, Any]) -> None:
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    tables = "\n\n".join(table(told) for told in report["runs"])
    REPORT.with_suffix(".txt").write_text(f"{tables}\n")
    print(f"{REPORT.relative_to(ROOT)} and report.txt say it all")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.llm.soak")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--faults", type=int, default=16, help="of each seed, and aftershocks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
