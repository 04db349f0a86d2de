"""One warm fork server for all tests that run real workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pretrain_llm.contract import environment

from . import runs, worlds


@pytest.fixture(scope="session")
def warm_workers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Workers started from here on are forked from a server that has imported all they need."""
    folder = tmp_path_factory.mktemp("warm")
    os.environ[environment.CONFIG] = str(
        runs.write_config(runs.run_config(folder), folder / "run.json")
    )
    worlds.warm_up()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A run's storage on which the Data stage has finished."""
    runs.write_data(runs.run_config(tmp_path).layout)
    return tmp_path
