"""python -m hack.throughput [--gpu]: measures, writes JSON and the tables of docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from . import cases, processes, report
from .cases import Case
from .measure import Estimate, Memory, Pair, StepCost, mfu, throughput
from .processes import System, started
from .worker import BARE, OURS, Task, write_shards

_ROOT = Path(__file__).parents[2]
_BUILD = _ROOT / "build" / "bench"
_PAGE = _ROOT / "docs" / "benchmarks.md"


def main() -> int:
    given = _arguments()
    if given.gpu and not _has_gpu():
        print("bench-gpu: no CUDA device here, so nothing was measured")
        return 0
    with tempfile.TemporaryDirectory(prefix="shards-") as name:
        folder = Path(name)
        first, *_ = cases.gpu_cases() if given.gpu else cases.cpu_cases()
        processes.warm_up(first.run, folder)
        found = _on_gpu(given, folder) if given.gpu else _on_cpu(given, folder)
    document = {"environment": report.environment(), **found}
    kind = "gpu" if given.gpu else "throughput"
    _BUILD.mkdir(parents=True, exist_ok=True)
    (_BUILD / f"{kind}.json").write_text(json.dumps(document, indent=1) + "\n")
    table = report.gpu_table(document) if given.gpu else report.cpu_table(document)
    print(table)
    if given.write:
        _PAGE.write_text(report.page(_PAGE.read_text(), f"make bench-{kind}", table))
    return 0 if document["meetsTargets"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hack.throughput", description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="recipes on this machine's GPU")
    parser.add_argument("--starts", type=int, help="of both systems (default 32; 6 on a GPU)")
    parser.add_argument("--pairs", type=int, default=8, help="blocks of each, a start (default 8)")
    parser.add_argument("--loader-steps", type=int, default=20, help="steps of the loader alone")
    parser.add_argument("--write", action="store_true", help="write the table into docs, too")
    given = parser.parse_args()
    if given.starts is None:
        given.starts = 6 if given.gpu else 32
    for field, least in (("starts", 2), ("pairs", 1)):
        if getattr(given, field) < least:
            parser.error(f"--{field} is {getattr(given, field)}: must be {least} or more")
    return given


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _on_cpu(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from pretrain_llm.training import on_cpu  # noqa: F401  before torchtitan

    from . import loader

    write_shards(folder, 32_000, loader.TOKENS)
    shares = [_told(each) for each in loader.shares(folder, given.loader_steps)]
    rows = [_told(_row(case, given, folder, at_once=True)) for case in cases.cpu_cases()]
    costs = [_cost(case, rows) for case in cases.cpu_cases() if case.long]
    return {
        "throughput": rows,
        "costs": [{**asdict(each), "ratio": asdict(each.ratio)} for each in costs],
        "loader": [{**asdict(each), "share": each.share} for each in shares],
        "meetsTargets": all(each.meets_target for each in (*costs, *shares)),
    }


def _cost(case: Case, rows: list[dict[str, Any]]) -> StepCost:
    """What a case with short steps says of the one with long ones."""
    by_name = {row["case"]: row for row in rows}
    long = next(each for each in cases.cpu_cases() if each.name == case.long)
    step_seconds = long.run.tokens_per_step / by_name[long.name]["bare_tokens_per_second"]
    found = Estimate(**by_name[case.name]["cost_seconds"])
    return StepCost(long.name, found, step_seconds)


def _told(found: Any) -> Any:
    """What a bench that is stopped has found so far."""
    print(found, file=sys.stderr, flush=True)
    return found


def _on_gpu(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows = [_told(_gpu_row(case, given, folder)) for case in cases.gpu_cases()]
    return {"throughput": rows, "meetsTargets": all(row["meetsTarget"] for row in rows)}


def _row(case: Case, given: argparse.Namespace, folder: Path, *, at_once: bool) -> dict[str, Any]:
    write_shards(folder, case.run.model.vocab_size, 4_000_000)
    measure = together if at_once else _in_turn
    pairs = given.pairs * case.pairs
    starts = [measure(case, pairs, folder) for _ in range(given.starts)]
    found = throughput([each.pairs for each in starts], block_tokens(case), case.block_steps)
    saves = not (case.is_control or case.long)
    return {
        "case": case.name,
        **asdict(found),
        "meetsTarget": found.meets_target,
        "saveStallSeconds": save_stalls(case, folder) if saves else None,
        "end": starts[0].end,
    }


def _gpu_row(case: Case, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from pretrain_operator.planner import Assumptions
    from pretrain_operator.planner.memory import memory_plan

    row = _row(case, given, folder, at_once=False)
    end, planned = row["end"], memory_plan(case.run, Assumptions()).allocated_bytes
    memory = Memory(end["peakBytes"], planned)
    speed = row["ours_tokens_per_second"]
    return {
        **row,
        "mfu": mfu(speed, end["flopsPerToken"], end["peakFlops"]),
        "published": cases.PUBLISHED_TOKENS_PER_SECOND.get(case.name),
        "memory": asdict(memory),
        "meetsTarget": row["meetsTarget"] and memory.meets_target,
    }


def block_tokens(case: Case) -> int:
    return case.block_steps * case.run.tokens_per_step


def _task(system: str, case: Case, folder: Path) -> Task:
    return Task(system, case.run, str(folder), case.block_steps)


@dataclass(frozen=True)
class Start:
    pairs: list[Pair]
    end: dict[str, Any]  # what ours had to say


def together(case: Case, pairs: int, folder: Path) -> Start:
    """Both are there all the time, and take turns; who is first changes, too."""
    with ExitStack() as stack:
        ours, bare = (
            stack.enter_context(started(_task(system, case, folder), case.ranks))
            for system in (case.system, BARE)
        )
        for system in (ours, bare):
            system.warm_up()
        found = [
            _pair(ours, bare) if number % 2 else _pair(bare, ours)[::-1] for number in range(pairs)
        ]
        return Start(found, ours.close())


def _pair(first: System, second: System) -> Pair:
    return first.block(), second.block()


def _in_turn(case: Case, pairs: int, folder: Path) -> Start:
    """One after the other: the device's memory is for one of them."""
    blocks, ends = [], []
    for name in (OURS, BARE):
        with started(_task(name, case, folder), case.ranks) as system:
            system.warm_up()
            blocks.append([system.block() for _ in range(pairs)])
            ends.append(system.close())
    return Start(list(zip(*blocks, strict=True)), ends[0])


def save_stalls(case: Case, folder: Path) -> dict[str, float]:
    """Seconds that training stands still for a save, medians of our reports."""
    found = {}
    for name, is_async in (("async", True), ("sync", False)):
        steps = max(2, case.block_steps)  # one save does not wait for the one before
        task = Task(OURS, case.run, str(folder), steps, steps, is_async)
        with started(task, case.ranks) as system:
            system.warm_up()
            for _ in range(3):
                system.block()
            system.close()
            stalls = [each.saved.stall_seconds for each in system.reports if each.saved]
        found[name] = median(stalls)
    return found


if __name__ == "__main__":
    sys.exit(main())
