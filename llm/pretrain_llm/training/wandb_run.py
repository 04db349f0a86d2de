"""One W&B run for one run: over all its restarts, and for no other run of its name.

The id is drawn once and kept on the run's volume, where its checkpoints are: what goes on from
them goes on in the same W&B run, and a namesake in another namespace, or one made anew on an empty
volume, has a run of its own. torchtitan's logger reads the environment.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ..artifacts import write_atomically
from ..contract.config import WandbConfig


def name_run(wandb: WandbConfig, run: str, id_file: Path) -> None:
    """Sets the environment. Only for the rank that logs: two at once would draw two ids."""
    os.environ["WANDB_PROJECT"] = wandb.project
    os.environ["WANDB_MODE"] = wandb.mode
    os.environ["WANDB_RUN_ID"] = _kept_id(id_file)
    os.environ["WANDB_RUN_NAME"] = run
    os.environ["WANDB_RESUME"] = "allow"


def _kept_id(file: Path) -> str:
    if not file.is_file():
        write_atomically(file, secrets.token_hex(8))
    return file.read_text()
