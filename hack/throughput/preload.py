"""What the workers' fork server imports: torchtitan as the device needs it, and both trainers."""

from __future__ import annotations

import gc
import importlib
import os

DEVICE = "THROUGHPUT_DEVICE"  # cpu or cuda

if DEVICE in os.environ:  # in the fork server; whoever starts one wants the name only
    # Ask NVML whether there is a GPU: the CUDA driver's own answer would make forks unusable.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if os.environ[DEVICE] == "cpu":
        importlib.import_module("pretrain_llm.training.on_cpu")  # before torchtitan
    importlib.import_module("hack.throughput.trainers")
    gc.freeze()
