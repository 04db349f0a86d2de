"""A step of a recipe at its true mesh, on fake tensors: the record says what is seen now."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from hack.recipes import book, record
from pretrain_llm.contract import codec
from pretrain_llm.contract.config import RunConfig

pytestmark = pytest.mark.usefixtures("warm_workers")

# One of each family and optimizer, with the one below; among them HSDP and pipeline parallelism.
CASES = (
    "pythia-160m",
    "olmo2-1b",
    "nanochat-d20-2025",
    "nanochat-d12",
    "scale23x-gpt-1.3b",
    "llama3.1-405b-ref",
)
DEADLINE_SECONDS = 240.0


@pytest.mark.parametrize("name", CASES)
def test_dry_run_is_what_the_record_has(name: str, tmp_path: Path) -> None:
    written = record.read()["recipes"][name]["ranks"]
    assert step(book.entry(name).plan.config, tmp_path / "seen.json") == codec.to_json(written[0])


def test_dry_run_of_sequences_of_64k_on_four_ranks_each(tmp_path: Path) -> None:
    """SmolLM3's last segment, with tensor parallelism."""
    run = record.shapes(book.entry("smollm3-3b").plan.config)[-1].run
    assert (run.training.sequence_length, run.parallelism.context_parallel) == (65536, 4)
    written = record.read()["recipes"]["smollm3-3b"]["later"][-1]["ranks"]
    assert step(run, tmp_path / "seen.json") == codec.to_json(written[0])


def step(run: RunConfig, path: Path) -> str:
    """In a process of its own, forked warm: the fake process group stays for its life."""
    process = multiprocessing.get_context("forkserver").Process(
        target=_step, args=(codec.to_json(run), str(path)), daemon=True
    )
    process.start()
    process.join(DEADLINE_SECONDS)
    process.kill()
    assert path.exists(), "the dry run failed; its traceback is on stderr"
    return path.read_text()


def _step(text: str, path: str) -> None:
    from pretrain_llm.training.dry_run import dry_run

    Path(path).write_text(codec.to_json(dry_run(codec.from_json(RunConfig, text), 0)))
