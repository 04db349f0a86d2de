"""What is read from a dump, and that a volume that fails hurts nobody."""

from __future__ import annotations

import logging
import os
from pathlib import Path, PurePosixPath

import pytest

from pretrain_llm.agent import stacks
from pretrain_llm.agent.stacks import Stood

from .agent_world import eventually

DUMP = """Thread 0x00007f01 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait

Current thread 0x00007f02 (most recent call first):
  File "/x/site-packages/torch/distributed/distributed_c10d.py", line 9 in all_reduce
  File "/app/llm/pretrain_llm/training/worker.py", line 71 in <module>
"""


def test_main_frames_are_the_last_threads_innermost_first() -> None:
    assert stacks.main_frames(DUMP) == (
        "torch/distributed/distributed_c10d.py:9 all_reduce",
        "training/worker.py:71 <module>",
    )


@pytest.mark.parametrize("text", ["", "Current thread 0x1 (most recent call first):\n", "junk"])
def test_main_frames_of_an_empty_dump_are_none(text: str) -> None:
    assert stacks.main_frames(text) == ()


def test_process_state_of_this_process_and_of_none() -> None:
    assert stacks.process_state(os.getpid()) in ("R", "S")
    assert stacks.process_state(2**30) == ""


def test_collect_worker_gone_is_told_at_once_without_a_stack() -> None:
    (stood,) = stacks.collect({3: 2**30}, {3: Path("absent")})
    assert (stood.rank, stood.state, stood.text) == (3, "", "")
    assert stood.report(7, PurePosixPath("/v/x.txt")).path is None


def test_save_volume_cannot_be_written_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        stacks.save([Stood(0, "S", DUMP)], {0: PurePosixPath(tmp_path / "file" / "0.txt")})
        eventually(lambda: "stacks of worker 0" in caplog.text, "the warning", 5)
