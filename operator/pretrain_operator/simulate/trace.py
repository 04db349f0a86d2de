"""Fault traces: read from CSV, or drawn with a seed. A class says what the fault does to its node.

A trace has the columns time_hours (since the start of the run), class and node (0 to nodes - 1).
"""

from __future__ import annotations

import csv
import io
import math
import random
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pretrain_llm.contract.reports import FaultReport

# Worker: one process fails, its node is sound.  Device: it fails again until the node is changed.
# Node: everything on it falls silent.  Hang: no process ends.  Drain: it is asked to leave.
Effect = Literal["Worker", "Device", "Node", "Hang", "Drain"]
COLUMNS = ("time_hours", "class", "node")
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class FaultClass:
    name: str
    effect: Effect
    llama3: int = 0  # interruptions of this class in 54 days


# Names and counts: The Llama 3 Herd of Models (arXiv:2407.21783), table 5: 419 unexpected ones, and
# 47 planned in the text. Which effect a class has is ours.
_CLASSES = (
    FaultClass("FaultyGPU", "Device", 148),
    FaultClass("GPUHBM3Memory", "Device", 72),
    FaultClass("SoftwareBug", "Worker", 54),
    FaultClass("NetworkSwitchOrCable", "Node", 35),
    FaultClass("HostMaintenance", "Node", 32),
    FaultClass("GPUSRAMMemory", "Device", 19),
    FaultClass("GPUSystemProcessor", "Device", 17),
    FaultClass("NIC", "Node", 7),
    FaultClass("NCCLWatchdogTimeout", "Hang", 7),
    FaultClass("SilentDataCorruption", "Device", 6),
    FaultClass("GPUThermalInterfaceOrSensor", "Device", 6),
    FaultClass("SSD", "Node", 3),
    FaultClass("PowerSupply", "Node", 3),
    FaultClass("ServerChassis", "Node", 2),
    FaultClass("IOExpansionBoard", "Node", 2),
    FaultClass("Dependency", "Worker", 2),
    FaultClass("CPU", "Node", 2),
    FaultClass("SystemMemory", "Node", 2),
    FaultClass("PlannedMaintenance", "Drain", 47),
    FaultClass("WorkerKilled", "Worker"),
    FaultClass("NodeLost", "Node"),
)
CLASSES: Mapping[str, FaultClass] = {entry.name: entry for entry in _CLASSES}


@dataclass(frozen=True, order=True)
class Fault:
    seconds: float  # since the start of the run
    name: str  # of its class
    node: int

    @property
    def effect(self) -> Effect:
        return CLASSES[self.name].effect


# How a worker ends, as PyTorch words it.
LAST_WORDS: Mapping[Effect, FaultReport] = {
    "Worker": FaultReport(
        0, 0, 0.0, exit_code=1, error_kind="RuntimeError", error_message="unexpected error"
    ),
    "Device": FaultReport(
        0,
        0,
        0.0,
        exit_code=1,
        error_kind="AcceleratorError",
        error_message="CUDA error: uncorrectable ECC error encountered",
    ),
    "Hang": FaultReport(0, 0, 0.0, signal=int(signal.SIGABRT)),
}


class TraceError(ValueError):
    """What is wrong with a trace, a line each."""


# From a file


def trace(text: str, nodes: int) -> tuple[Fault, ...]:
    """In order of time. Raises TraceError naming every bad row."""
    reader = csv.DictReader(io.StringIO(text))
    found = tuple(reader.fieldnames or ())
    if sorted(found) != sorted(COLUMNS):
        shown = ", ".join(found) or "nothing"
        raise TraceError(f"line 1: columns are {shown}; give {', '.join(COLUMNS)}")
    faults: list[Fault] = []
    problems: list[str] = []
    for row in reader:
        wrong = list(_problems(row, nodes))
        problems += [f"line {reader.line_num}: {problem}" for problem in wrong]
        if not wrong:
            seconds = float(row["time_hours"]) * _SECONDS_PER_HOUR
            faults.append(Fault(seconds, row["class"], int(row["node"])))
    if problems:
        raise TraceError("\n".join(problems))
    return tuple(sorted(faults))


def _problems(row: Mapping[str | None, object], nodes: int) -> Iterator[str]:
    if None in row or None in row.values():
        yield f"a row has the {len(COLUMNS)} fields {', '.join(COLUMNS)}"
        return
    if not _is_time(str(row["time_hours"])):
        yield f"time_hours {row['time_hours']!r}: give hours since the start, 0 or more"
    if row["class"] not in CLASSES:
        yield f"class {row['class']!r}: choose one of {', '.join(CLASSES)}"
    node = str(row["node"])
    if not (node.isdecimal() and int(node) < nodes):
        yield f"node {node!r}: give a number from 0 to {nodes - 1}"


def _is_time(text: str) -> bool:
    try:
        hours = float(text)
    except ValueError:
        return False
    return math.isfinite(hours) and hours >= 0


# Drawn


def llama3(seed: int, nodes: int, horizon_seconds: float) -> tuple[Fault, ...]:
    """Meta's 466 interruptions, at times and on nodes that are uniform (a Poisson process)."""
    draw = random.Random(seed)  # noqa: S311
    return tuple(
        sorted(
            Fault(draw.uniform(0, horizon_seconds), entry.name, draw.randrange(nodes))
            for entry in _CLASSES
            for _ in range(entry.llama3)
        )
    )


def spaced(
    seed: int, nodes: int, horizon_seconds: float, name: str, gap_seconds: tuple[float, float]
) -> tuple[Fault, ...]:
    """Faults of one class, each a uniform gap after the one before."""
    draw = random.Random(seed)  # noqa: S311
    faults: list[Fault] = []
    now = draw.uniform(*gap_seconds)
    while now < horizon_seconds:
        faults.append(Fault(now, name, draw.randrange(nodes)))
        now += draw.uniform(*gap_seconds)
    return tuple(faults)


def by_shares(
    seed: int, nodes: int, horizon_seconds: float, mtbf_seconds: float
) -> tuple[Fault, ...]:
    """A Poisson process with Meta's shares of the classes."""
    draw = random.Random(seed)  # noqa: S311
    names, weights = list(CLASSES), [entry.llama3 for entry in _CLASSES]
    faults: list[Fault] = []
    now = draw.expovariate(1 / mtbf_seconds)
    while now < horizon_seconds:
        (name,) = draw.choices(names, weights)
        faults.append(Fault(now, name, draw.randrange(nodes)))
        now += draw.expovariate(1 / mtbf_seconds)
    return tuple(faults)
