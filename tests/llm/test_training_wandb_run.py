"""Which W&B run a training run writes to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pretrain_llm.contract.config import WandbConfig
from pretrain_llm.training import wandb_run

ONLINE = WandbConfig("demo", "online")


@pytest.fixture(autouse=True)
def environment_to_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROJECT", "MODE", "RUN_ID", "RUN_NAME", "RESUME"):
        monkeypatch.setenv(f"WANDB_{name}", "before")


def named(id_file: Path) -> str:
    wandb_run.name_run(ONLINE, "goldie", id_file)
    return os.environ["WANDB_RUN_ID"]


def test_wandb_run_keeps_its_id_over_restarts(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "wandb-id"
    first = named(file)
    assert named(file) == first
    assert (os.environ["WANDB_RUN_NAME"], os.environ["WANDB_RESUME"]) == ("goldie", "allow")
    assert (os.environ["WANDB_PROJECT"], os.environ["WANDB_MODE"]) == ("demo", "online")


def test_wandb_runs_of_one_name_on_two_volumes_are_two(tmp_path: Path) -> None:
    first, second = named(tmp_path / "one" / "wandb-id"), named(tmp_path / "two" / "wandb-id")
    assert first != second
    assert all(part.isalnum() and len(part) == 16 for part in (first, second))
