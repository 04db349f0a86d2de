"""Pure but for `environment`: what was measured as tables of docs/benchmarks.md."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from .measure import LOADER_TARGET, RATIO_TARGET


def environment() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load": f"{os.getloadavg()[1]:.1f} over 5 minutes",
        "torch": version("torch").split("+")[0],
        "torchtitan": version("torchtitan"),
        "commit": commit.stdout.strip(),
    }


def cpu_table(found: Mapping[str, Any]) -> str:
    rows = [
        (
            row["case"],
            row["starts"],
            row["pairs"],
            *_speeds(row),
            _milliseconds(row["cost_seconds"]),
            *_stalls(row),
        )
        for row in found["throughput"]
    ]
    shares = [
        (
            each["recipe"],
            f"{each['rank_tokens']:,}",
            f"{each['step_seconds']:.3g} s",
            f"{each['read_seconds'] * 1e3:.2f} ms",
            f"{each['wait_seconds'] * 1e6:.0f} µs",
            f"{each['share']:.4%}",
            _verdict(each["share"] < LOADER_TARGET),
        )
        for each in found["loader"]
    ]
    costs = [
        (
            each["case"],
            _milliseconds(each["cost_seconds"]),
            f"{each['step_seconds']:.2f} s",
            _estimate(each["ratio"]),
            _verdict(each["ratio"]["mean"] >= RATIO_TARGET),
        )
        for each in found["costs"]
    ]
    heads = ("case", "starts", "pairs", *_SPEEDS, "ours costs a step", *_STALLS)
    cost = ("case", "ours costs a step, by the short ones", "a bare step takes",
            "ratio by that", "≥ 0.995")  # fmt: skip
    loader = ("recipe", "tokens a rank and step", "planned step", "reading them", "the step waits",
              "share", "< 0.1 %")  # fmt: skip
    tables = (_table(heads, rows), _table(cost, costs), _table(loader, shares))
    return "\n".join(
        [_environment(found["environment"]), *(line for table in tables for line in ("", *table))]
    )


def gpu_table(found: Mapping[str, Any]) -> str:
    rows = [
        (
            row["case"],
            row["starts"],
            row["pairs"],
            *_speeds(row),
            f"{row['published']:,}" if row["published"] else "–",
            f"{row['mfu']:.1%}",
            f"{row['memory']['peak_bytes'] / 2**30:.1f} GiB",
            f"{row['memory']['peak_bytes'] / row['memory']['planned_bytes'] - 1:+.1%}",
            *_stalls(row),
            _verdict(row["meetsTarget"]),
        )
        for row in found["throughput"]
    ]
    heads = ("recipe", "starts", "pairs", *_SPEEDS, "published, H100", "MFU", "peak memory",
             "over the plan", *_STALLS, "≥ 0.995 and ±10 %")  # fmt: skip
    return "\n".join([_environment(found["environment"]), "", *_table(heads, rows)])


_SPEEDS = ("ours, tokens/s", "bare torchtitan", "ratio ± standard error")
_STALLS = ("a save stalls: async", "sync")


def _speeds(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['ours_tokens_per_second']:,.0f}",
        f"{row['bare_tokens_per_second']:,.0f}",
        _estimate(row["ratio"]),
    )


def _estimate(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.4f} ± {found['standard_error']:.4f}"


def _milliseconds(found: Mapping[str, float]) -> str:
    return f"{found['mean'] * 1e3:.2f} ± {found['standard_error'] * 1e3:.2f} ms"


def _stalls(row: Mapping[str, Any]) -> tuple[str, ...]:
    stalls = row["saveStallSeconds"]
    if stalls is None:
        return "–", "–"
    return f"{stalls['async']:.2f} s", f"{stalls['sync']:.2f} s"


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**not met**"


def _environment(found: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in found.items()) + "."


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]


def page(text: str, command: str, table: str) -> str:
    """The page with what a command generates replaced. Raises ValueError where it has no place."""
    begin, end = f"<!-- begin: {command} -->\n", f"<!-- end: {command} -->\n"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the page has no {begin.strip()} … {end.strip()}")
    return f"{before}{begin}{table}\n{end}{after}"
