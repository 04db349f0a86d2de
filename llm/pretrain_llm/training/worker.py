"""The body of one worker process: train the run from its newest verified checkpoint to the end.

RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT come from the environment, as torchrun
sets them. Exit codes and error files are the caller's: it gets exceptions.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from . import preload  # first: it makes torchtitan fit the device

# isort: split
import torch
import torch.distributed as dist
from torchtitan.tools import utils

from ..contract import config, environment, meshes
from ..contract.config import RunConfig
from ..errors import DeviceMemoryError, InputError
from . import cpu, mesh, preconditions, titan, wandb_run
from .agreement import leave_at_once
from .inputs import open_inputs
from .position import finished_steps

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # of a plain RuntimeError


def main() -> None:
    """Raises InputError, DeviceMemoryError, SystemExit(SAVED) and whatever torch raises."""
    given = config.load(os.environ.get(environment.CONFIG, environment.CONFIG_PATH))
    run = meshes.on_ranks(given, int(os.environ["WORLD_SIZE"]))
    leave_at_once()
    _log_to_stdout(mesh.loss_rank(run.parallelism))
    try:
        _train(run)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceMemoryError(str(error)) from error
    except RuntimeError as error:
        if _CPU_OUT_OF_MEMORY not in str(error):
            raise
        raise DeviceMemoryError(str(error)) from error


def _train(run: RunConfig) -> None:
    _check_device(run.nodes.device)
    preconditions.check(run, int(os.environ["WORLD_SIZE"]))
    inputs = open_inputs(run)
    if run.nodes.device == "cpu":
        cpu.use_threads()
    if run.training.wandb and int(os.environ["RANK"]) == mesh.loss_rank(run.parallelism):
        wandb_run.name_run(run.training.wandb, run.run, Path(run.layout.wandb_id))
    trainer = titan.trainer_config(run, inputs, finished_steps(run)).build()
    trainer.train()
    # Not after an error: closing waits for the other ranks, and they may be gone.
    trainer.close()
    dist.destroy_process_group()


def _check_device(wanted: str) -> None:
    if utils.device_type != wanted or (wanted == "cuda" and not torch.cuda.is_available()):
        raise InputError(
            f"this worker has no {wanted} device",
            field="spec.nodes.deviceResource",
            value=wanted,
            remedy="Name an image that can use it in spec.nodes.template.image, "
            "or start a run under another name with another device.",
        )


def _log_to_stdout(loss_rank: int) -> None:
    """The rank that has the loss tells the story; the others only what is wrong."""
    rank = int(os.environ["RANK"])
    logging.basicConfig(
        format=f"%(asctime)s [rank {rank}] %(levelname)s %(message)s",
        level=logging.INFO if rank == loss_rank else logging.ERROR,
        force=True,
    )


assert preload  # imported for what it does
