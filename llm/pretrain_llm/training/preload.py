"""What a fork server imports before the first round, so that workers start warm.

Makes no CUDA context and starts no thread of Python's or OpenMP's: they would break a fork
(OpenBLAS and jemalloc start one each, and know forks). Whether the run trains on CPU comes from its
configuration, so the server's environment must name it as the pods' does.
"""

from __future__ import annotations

import gc
import importlib
import os

# Ask NVML whether there is a GPU: the CUDA driver's own answer would make forks unusable.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

from ..contract import config, environment
from ..contract.config import ARCHITECTURES
from ..models import architecture
from . import cpu


def device() -> str:
    """cpu or cuda, as the configuration says. Raises OSError, codec.DecodeError."""
    path = os.environ.get(environment.CONFIG, environment.CONFIG_PATH)
    return config.load(path).nodes.device


if device() == "cpu":
    cpu.enable()  # before torchtitan is imported

importlib.import_module(f"{__package__}.titan")
importlib.import_module(f"{__package__}.worker")
for name in ARCHITECTURES:
    architecture(name)

gc.freeze()  # what is loaded now stays shared with the forks
