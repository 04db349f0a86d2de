"""One warm fork server for all tests that run real workers."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
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
    # Python 3.11's fork server preloads with the path of its own start, and ignores failed imports.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    multiprocessing.get_context("forkserver").set_forkserver_preload([worlds.PRELOAD])
    forkserver.ensure_running()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A run's storage on which the Data stage has finished."""
    runs.write_data(runs.run_config(tmp_path).layout)
    return tmp_path
