"""The data loader by itself, at recipes' batch sizes: what a step waits for it.

The step is only the time that the recipe's plan has for it, slept: a device computes, the host has
nothing to do. What the first batch costs is not counted, it comes before the first step.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from hack.recipes import book
from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.curriculum import segments

from .measure import LoaderShare

RECIPES = ("nanollama-nano", "nanollama-small", "nanollama-goldie", "llama-1b-50b", "smollm3-3b")
TOKENS = 50_000_000  # in the shard


def shares(folder: Path, steps: int) -> Iterator[LoaderShare]:
    """Of the first data-parallel rank, at the recipe's true mesh."""
    for name in RECIPES:
        plan = book.entry(name).plan
        run = replace(plan.config, data=replace(plan.config.data, sources=()))
        yield _share(name, run, plan.compute.step_seconds, folder, steps)


def _share(name: str, run: RunConfig, step_seconds: float, folder: Path, steps: int) -> LoaderShare:
    loader, at_once = _loader(run, folder)
    batches = iter(loader)
    waits, begun = [], time.process_time()
    for _ in range(steps + 1):
        waits.append(_wait(batches, at_once))
        loader.read_on()
        time.sleep(step_seconds)
    read_seconds = (time.process_time() - begun) / (steps + 2)  # one is read ahead
    training, ranks = run.training, _ranks(run)
    return LoaderShare(
        recipe=name,
        rank_tokens=training.global_batch_size // ranks * training.sequence_length,
        step_seconds=step_seconds,
        read_seconds=read_seconds,
        wait_seconds=median(waits[1:]),
    )


def _wait(batches: Iterator[Any], at_once: int) -> float:
    """Whoever has trained on them lets go of them, whichever loader they came from: not counted."""
    begun = time.perf_counter()
    taken = list(itertools.islice(batches, at_once))
    seconds = time.perf_counter() - begun
    del taken
    return seconds


def _loader(run: RunConfig, folder: Path) -> tuple[Any, int]:
    """The loader, and how many local batches a step has."""
    from pretrain_llm.training.loader import PackedLoader

    from .trainers import inputs

    everyone, training = segments(run), run.training
    loader = PackedLoader.Config(
        folder=str(folder), index=inputs(folder).index, segments=everyone, segment=everyone[0]
    ).build(
        dp_world_size=_ranks(run),
        dp_rank=0,
        seq_len=training.sequence_length,
        local_batch_size=training.local_batch_size,
        tokenizer=None,
    )
    return loader, training.global_batch_size // (_ranks(run) * training.local_batch_size)


def _ranks(run: RunConfig) -> int:
    return run.parallelism.data_parallel_replicate * run.parallelism.data_parallel_shard
