"""A published run, or a sizing, with figures that were computed apart from the planner.

Parameter counts are the published ones where a source is named (model cards, or the projects' own
repositories at the commit given); sizings have none. FLOPs, hours, intervals and goodput come from
a spreadsheet of 2026-11 that uses 6ND at the MFU given on H100s of 989 TFLOP/s, 466 interruptions
in 54 days on 16,384 GPUs, and a restart of 300 s.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    name: str
    source: str
    shape: tuple[int, int, int, int, int, int]  # layers, dim, heads, KV heads, FFN, vocabulary
    tied: bool
    parameters: int
    tokens: float
    sequence: int
    batch: int  # sequences
    local_batch: int
    gpus: int
    mesh: tuple[int, int, int, int]  # replicate, shard, tensor, pipeline
    checkpointing: str
    mfu: float
    flops: float
    gpu_hours: float
    stall_seconds: float
    daly_seconds: float
    interval_seconds: float
    interruptions: float
    goodput: float
