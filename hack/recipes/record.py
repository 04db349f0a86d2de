"""One step of every recipe at its true mesh, and the record of it: recipes/dry-run.json.

A curriculum has a step of each shape: length and batches.

A recipe's digest covers what a dry run depends on, as the file has it: shapes, training, mesh. So
an edit elsewhere keeps the record, and an edit there makes it stale, which a unit test says.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pretrain_llm.contract import codec
from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.curriculum import Segment, segments

from .book import FOLDER, Entry, body, entry, names

RECORD = FOLDER / "dry-run.json"


def digest_of(written: dict[str, Any]) -> str:
    spec = written["spec"]
    nodes = [spec["nodes"][key] for key in ("count", "devicesPerNode")]
    parts = [spec["model"], spec["training"], spec.get("parallelism"), nodes]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {"recipes": {}}
    return found


def missing(record: dict[str, Any]) -> list[str]:
    """Recipes that the record lacks, or has in another form."""
    return [
        name
        for name in names()
        if record["recipes"].get(name, {}).get("digest") != digest_of(body(name))
    ]


def dry_run(python: str, wanted: Iterable[str]) -> None:
    """The record is written after each recipe, so a stop loses one.

    Raises RuntimeError where one fails; why is on stderr.
    """
    versions = _versions(python)
    with _runner(python) as runner:
        for name in wanted:
            row = _row(runner, entry(name))
            record = read()
            record["recipes"][name] = row
            rows = dict(sorted(record["recipes"].items()))
            RECORD.write_text(json.dumps({"versions": versions, "recipes": rows}, indent=1) + "\n")
            parts = [part["ranks"][0] for part in (row, *row.get("later", ()))]
            passes = ", then ".join(str(part["microbatches"]) for part in parts)
            print(f"{name}: {parts[0]['worldSize']} ranks, {passes} passes", flush=True)


def _row(runner: subprocess.Popen[str], item: Entry) -> dict[str, Any]:
    first, *later = shapes(item.plan.config)
    row = {"digest": digest_of(item.body), "ranks": _step(runner, item.name, first)}
    steps = [{"fromStep": each.start, "ranks": _step(runner, item.name, each)} for each in later]
    return {**row, "later": steps} if steps else row


def shapes(run: RunConfig) -> tuple[Segment, ...]:
    """The first segment of each shape: others differ in data, rates and rotation alone."""
    found: dict[tuple[int, ...], Segment] = {}
    for segment in segments(run):
        training = segment.run.training
        batches = (training.global_batch_size, training.local_batch_size)
        found.setdefault((training.sequence_length, *batches), segment)
    return tuple(found.values())


def _step(runner: subprocess.Popen[str], name: str, segment: Segment) -> list[dict[str, Any]]:
    return [_seen(runner, name, segment.run, rank) for rank in _ranks(segment.run)]


def _ranks(run: RunConfig) -> list[int]:
    last = run.nodes.count * run.nodes.devices_per_node - 1
    return [0, last] if run.parallelism.pipeline_parallel > 1 else [0]


def _runner(python: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-m", "pretrain_llm.training.dry_run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path("llm").resolve())},
    )


def _seen(runner: subprocess.Popen[str], name: str, run: RunConfig, rank: int) -> dict[str, Any]:
    assert runner.stdin
    assert runner.stdout
    runner.stdin.write(f'{{"run": {codec.to_json(run)}, "rank": {rank}}}\n')
    runner.stdin.flush()
    line = runner.stdout.readline()
    if not line:
        raise RuntimeError(f"{name}, rank {rank}: the dry run failed, see above")
    seen: dict[str, Any] = json.loads(line)
    return seen


def _versions(python: str) -> dict[str, str]:
    code = (
        "import json; from importlib.metadata import version; "
        "print(json.dumps({n: version(n).split('+')[0] for n in ('torch', 'torchtitan')}))"
    )
    found: dict[str, str] = json.loads(
        subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    )
    return found
