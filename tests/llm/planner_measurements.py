"""What the real torchtitan model takes, measured on CPU for test_planner_memory.py.

    PYTHONPATH=operator:llm:. python -m tests.llm.planner_measurements states blocks

prints JSON of these parts. A process of its own: one fake process group of 64 ranks (this is rank
0, nothing is sent), which no other test should see. Shapes of the states are true ones, on the meta
device; what is computed has small shapes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_llm.contract.config import (
    ARCHITECTURES,
    LEARNED_POSITIONS,
    UNSPLIT,
    OptimizerConfig,
    RunConfig,
)

from .runs import changed, mesh, run_config

WORLD = 64
SEQUENCE = 64


def recipe_run(
    shape: tuple[int, ...],
    tied: bool,
    parallelism: dict[str, int],
    family: str = "llama",
    *,
    biases: bool | None = None,
) -> RunConfig:
    """`shape` is (layers, dim, heads, KV heads, FFN, vocabulary)."""
    layers, dim, heads, kv_heads, ffn, vocabulary = shape
    model = {
        "architecture": family,
        "dim": dim,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "ffn_hidden_dim": ffn,
        "vocab_size": vocabulary,
        "tie_embeddings": tied,
        "max_positions": 2048 if family in LEARNED_POSITIONS else None,
        "biases": biases,
    }
    return run_config(Path("/unused"), model=model, parallelism=parallelism)


MUON = OptimizerConfig("Muon", 0.02, 0.0, 0.8, 0.95, 1e-10, adamw_learning_rate=0.004)

# Published shapes, on meshes of 64 ranks that cover FSDP, HSDP, tensor and pipeline parallelism.
STATES = {
    "nanollama-small": recipe_run((24, 1024, 16, 4, 2816, 32000), False, mesh(8, 8)),
    "tinyllama-1.1b": recipe_run((22, 2048, 32, 4, 5632, 32000), False, mesh(8, 8)),
    "microllama-300m": recipe_run((12, 1024, 16, 4, 5632, 32000), False, mesh(64, 1)),
    "smollm2-135m": recipe_run((30, 576, 9, 3, 1536, 49152), True, mesh(1, 64)),
    "smollm2-360m": recipe_run((32, 960, 15, 5, 2560, 49152), True, mesh(2, 32)),
    "llama-1b": recipe_run((16, 2048, 32, 8, 8192, 32768), True, mesh(4, 16)),
    "llama3-8b": recipe_run((32, 4096, 32, 8, 14336, 128256), False, mesh(1, 32, 2)),
    "llama3-70b": recipe_run((80, 8192, 64, 8, 28672, 128256), False, mesh(1, 8, 8)),
    "smollm3-3b-64k": recipe_run(
        (36, 2048, 16, 4, 11008, 128256), True, mesh(1, 4, 2, context=8), "smollm3"
    ),
    "llama-7b-pipeline": recipe_run((32, 4096, 32, 32, 11008, 32000), False, mesh(1, 8, 2, 4)),
    "olmo2-1b": recipe_run((16, 2048, 16, 16, 8192, 100352), False, mesh(1, 64), "olmo2"),
    "pythia-1b": recipe_run((16, 2048, 8, 8, 8192, 50304), False, mesh(8, 8), "gpt_neox"),
    "pythia-12b": recipe_run((36, 5120, 40, 40, 20480, 50688), False, mesh(1, 32, 2), "gpt_neox"),
    "smollm3-3b": recipe_run((36, 2048, 16, 4, 11008, 128256), True, mesh(1, 32, 2), "smollm3"),
    "gpt2-xl": recipe_run((48, 1600, 25, 25, 6400, 50257), True, mesh(8, 8), "gpt2"),
    "scale23x-gpt-1.3b": recipe_run(
        (24, 2048, 32, 32, 8192, 50304), True, mesh(1, 32, 2), "gpt2", biases=False
    ),
    "nanochat-d32": recipe_run((32, 2048, 16, 16, 8192, 65536), False, mesh(64), "nanochat"),
    "nanochat-d20": recipe_run((20, 1280, 10, 10, 5120, 65536), False, mesh(1, 32, 2), "nanochat"),
    "nanochat-d32-muon": changed(
        recipe_run((32, 2048, 16, 16, 8192, 65536), False, mesh(8, 8), "nanochat"),
        training={"optimizer": MUON},
    ),
    "llama-7b-muon-pipeline": changed(
        recipe_run((32, 4096, 32, 32, 11008, 32000), False, mesh(1, 16, 1, 4)),
        training={"optimizer": MUON},
    ),
    "nanochat-2026-d24-muon": changed(
        recipe_run((24, 1536, 12, 12, 6144, 32768), False, mesh(8, 8), "nanochat_2026"),
        training={"optimizer": MUON},
    ),
    "olmo2-32b": recipe_run((64, 5120, 40, 8, 27648, 100352), False, mesh(1, 8, 8), "olmo2"),
}


@dataclass(frozen=True)
class Block:
    precision: str
    checkpointing: str
    tensor: int
    family: str = "llama"
    biases: bool | None = None

    def run(self, *, layers: int = 3, sequences: int = 1) -> RunConfig:
        parallelism = mesh(1, WORLD // self.tensor, self.tensor)
        return changed(
            recipe_run(
                (layers, 128, 4, 4, 320, 512),
                False,
                parallelism,
                self.family,
                biases=self.biases,
            ),
            training={
                "sequence_length": SEQUENCE,
                "local_batch_size": sequences,
                "global_batch_size": sequences * WORLD // self.tensor,
                "precision": self.precision,
                "activation_checkpointing": self.checkpointing,
            },
        )


BLOCKS = [
    Block(precision, checkpointing, tensor)
    for precision in ("bfloat16", "float32")
    for checkpointing in ("none", "selective", "full")
    for tensor in (1, 4)
]
BLOCKS += [Block("bfloat16", "selective", tensor, "gpt2", biases=False) for tensor in (1, 4)]
BLOCKS += [
    Block("bfloat16", checkpointing, tensor, family)
    for family in ARCHITECTURES
    if family != "llama"
    for checkpointing, tensor in (
        ("none", 1),
        ("none", 4),
        ("selective", 1),
        ("selective", 4),
        ("full", 1 if family in UNSPLIT else 4),
    )
    if tensor == 1 or family not in UNSPLIT
]


def step_run(
    parallelism: dict[str, int], *, checkpointing: str = "none", tied: bool = False, passes: int = 1
) -> RunConfig:
    """Of 1024 tokens a rank."""
    sequences = 4 * parallelism["context_parallel"]
    data_ranks = parallelism["data_parallel_replicate"] * parallelism["data_parallel_shard"]
    return changed(
        recipe_run((4, 256, 4, 2, 768, 2048), tied, parallelism),
        training={
            "sequence_length": 256,
            "local_batch_size": sequences,
            "global_batch_size": sequences * data_ranks * passes,
            "precision": "bfloat16",
            "activation_checkpointing": checkpointing,
        },
    )


STEPS = {
    "fsdp": step_run(mesh(1, 64)),
    "hsdp": step_run(mesh(16, 4)),
    "replicated": step_run(mesh(64, 1)),
    "tied": step_run(mesh(1, 64), tied=True),
    "selective": step_run(mesh(1, 64), checkpointing="selective"),
    "full": step_run(mesh(1, 64), checkpointing="full"),
    "tensor": step_run(mesh(1, 32, 2)),
    "context": step_run(mesh(1, 32, context=2)),
    "context-full": step_run(mesh(1, 32, context=2), checkpointing="full"),
    "accumulated": step_run(mesh(1, 64), passes=2),
}


PARTS: dict[str, Callable[[], Any]] = {
    "states": lambda: {name: state_bytes(run) for name, run in STATES.items()},
    "stages": lambda: stage_blocks([(32, 4), (22, 4), (80, 16), (3, 3)]),
    "blocks": lambda: [block_bytes(block) for block in BLOCKS],
    "steps": lambda: {name: step_bytes(run) for name, run in STEPS.items()},
}


def state_bytes(run: RunConfig) -> dict[str, int]:
    """Of rank 0: weights, and AdamW's moments after a step, on the meta device."""
    import torch

    parts = _parallelized(run)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    if run.training.optimizer.name == "Muon":
        return _state(parameters, _muon_moments(run, parts))
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(parameters)
    optimizer.step()
    moments = [
        value for state in optimizer.state.values() for value in state.values() if value.dim()
    ]
    return _state(parameters, moments)


def _state(parameters: list[Any], moments: list[Any]) -> dict[str, int]:
    return {
        "weights": _local_bytes(parameters),
        "moments": _local_bytes(moments),
        "elements": sum(parameter.numel() for parameter in parameters),
    }


def _muon_moments(run: RunConfig, parts: list[Any]) -> list[Any]:
    """What has the shape of each: Muon has one of a parameter, AdamW two."""
    from pretrain_llm.training import titan
    from pretrain_llm.training.muon import Muon

    container = titan.optimizers(run.training.optimizer).build(model_parts=parts)
    return [
        parameter
        for optimizer in container
        for group in optimizer.param_groups
        for parameter in group["params"]
        for _ in range(1 if isinstance(optimizer, Muon) else 2)
    ]


def stage_blocks(pipelines: list[tuple[int, int]]) -> list[list[int]]:
    """How many blocks torchtitan gives each stage, for (blocks, stages)."""
    from torchtitan.distributed.pipeline_parallel import _generate_llm_fqn_per_model_part

    return [
        [
            sum(name.startswith("layers.") for name in part)
            for part in _generate_llm_fqn_per_model_part(stages, blocks)
        ]
        for blocks, stages in pipelines
    ]


def block_bytes(block: Block) -> dict[str, float]:
    """A token of one block: what is alive after the forward and, without checkpointing, what
    autograd has saved. Differences over tokens and blocks leave nothing but activations."""
    found = {"alive": _per_token_and_block(block, _alive_after_forward)}
    if block.checkpointing == "none":
        found["saved"] = _per_token_and_block(block, _saved_for_backward)
    return found


def _per_token_and_block(block: Block, measure: Callable[[RunConfig], int]) -> float:
    def size(sequences: int, layers: int) -> int:
        return measure(block.run(layers=layers, sequences=sequences))

    difference = size(3, 3) - size(1, 3) - size(3, 1) + size(1, 1)
    return difference / (2 * SEQUENCE * 2)


def _alive_after_forward(run: RunConfig) -> int:
    model, context, batch = _ready(run)
    with context, _alive_class()() as alive:
        _add_state(alive, model)
        predicted = model(**batch)
        return alive.bytes - predicted.untyped_storage().nbytes()


def _saved_for_backward(run: RunConfig) -> int:
    import torch

    saved: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        saved.setdefault(storage._cdata, storage)
        return tensor

    model, context, batch = _ready(run)
    with context, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**batch)
    return sum(storage.nbytes() for storage in saved.values())


def step_bytes(run: RunConfig) -> dict[str, int]:
    """The most that is alive in the second optimiser step, and the gradients at its end."""
    import torch

    model, context, batch = _ready(run)
    optimizer = torch.optim.AdamW(model.parameters())
    data_ranks = run.parallelism.data_parallel_replicate * run.parallelism.data_parallel_shard
    passes = run.training.global_batch_size // (run.training.local_batch_size * data_ranks)
    with context, _alive_class()() as alive:
        _add_state(alive, model)
        for _ in range(2):
            alive.peak_bytes = 0
            model.zero_grad(set_to_none=True)
            for _ in range(passes):
                _forward_and_backward(run, model, batch)
            gradients = _local_bytes([parameter.grad for parameter in model.parameters()])
            optimizer.step()
        return {"peak": alive.peak_bytes, "gradients": gradients}


def _forward_and_backward(run: RunConfig, model: Any, batch: dict[str, Any]) -> None:
    """As torchtitan's Trainer._forward_backward_body does."""
    import torch
    from torchtitan.components.loss import CrossEntropyLoss
    from torchtitan.config.configs import CompileConfig

    loss_of = CrossEntropyLoss.Config(global_vocab_size=run.model.vocab_size).build(
        compile_config=CompileConfig()
    )
    predicted = model(**batch)
    loss, _ = loss_of(predicted, batch["tokens"], torch.tensor(1.0))
    del predicted
    loss.backward()


def _add_state(alive: Any, model: Any) -> None:
    for tensor in (*model.parameters(), *model.buffers()):
        alive.add(tensor)


def _alive_class() -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    class Alive(TorchDispatchMode):
        """Storages that operators made and that are still there; FSDP2 frees by resizing to 0."""

        def __init__(self) -> None:
            super().__init__()
            self._storages: dict[int, Any] = {}
            self.peak_bytes = 0

        def add(self, value: Any) -> None:
            if not isinstance(value, torch.Tensor):
                return
            tensor = value.to_local() if hasattr(value, "to_local") else value
            storage = tensor.untyped_storage()
            known = self._storages.get(storage._cdata)
            if known is None or known() is None:
                self._storages[storage._cdata] = weakref.ref(storage)

        @property
        def bytes(self) -> int:
            alive = {key: found for key, ref in self._storages.items() if (found := ref())}
            self._storages = {key: self._storages[key] for key in alive}
            return sum(storage.nbytes() for storage in alive.values())

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            for value in tree_iter(result):
                self.add(value)
            self.peak_bytes = max(self.peak_bytes, self.bytes)
            return result

    return Alive


def _ready(run: RunConfig) -> tuple[Any, AbstractContextManager[Any], dict[str, Any]]:
    """The model on CPU with weights, the context of a step, and a local batch."""
    import torch
    from torchtitan.distributed import utils

    (model,) = _parallelized(run)
    model.to_empty(device="cpu")
    with torch.no_grad():
        model.init_weights(buffer_device=None)
    dims = _parallel_dims(run)
    context = utils.get_spmd_context(parallel_dims=dims, spmd_typechecking=False)()
    return model, context, _batch(run, model, dims)


def _batch(run: RunConfig, model: Any, dims: Any) -> dict[str, Any]:
    """This rank's part of it."""
    import torch
    from torchtitan.distributed.context_parallel import cp_shard

    from pretrain_llm.training import cpu

    shape = (run.training.local_batch_size, run.training.sequence_length)
    tokens = torch.zeros(shape, dtype=torch.int64)
    positions = torch.arange(shape[1]).expand(shape).contiguous()
    with cpu.uncompiled():
        masks = model.get_attention_masks(positions=positions)
        if dims.cp_enabled:
            (tokens, positions), masks = cp_shard(dims.get_mesh("cp"), (tokens, positions), masks)
    return {"tokens": tokens, "positions": positions, "attention_masks": masks}


def _parallelized(run: RunConfig) -> list[Any]:
    """Rank 0's model parts on the meta device, through the adapter's own configuration."""
    import torch
    from torchtitan.components.loss import CrossEntropyLoss
    from torchtitan.config.configs import CompileConfig

    from pretrain_llm import models
    from pretrain_llm.training import cpu, titan

    family = models.architecture(run.model.architecture)
    spec = cpu.adapted(
        family.model_spec(run.model, run.training.sequence_length),
        is_blocked=run.parallelism.context_parallel > 1,
    )
    parallelism = titan._parallelism(run)
    torch_run = type("Parallel", (), {"parallelism": parallelism})()
    spec.model.update_from_config(config=torch_run)
    with torch.device("meta"):
        model = spec.model.build()
    common: dict[str, Any] = {
        "parallel_dims": _parallel_dims(run),
        "training": titan._training(run.training),
        "parallelism": parallelism,
        "compile_config": CompileConfig(),
        "ac_config": titan._ACTIVATION_CHECKPOINTING[run.training.activation_checkpointing](),
        "dump_folder": "",
    }
    if run.parallelism.pipeline_parallel == 1:
        model = spec.parallelize_fn(model, **common)
        if model.enable_weight_tying:  # as init_states does, once the model is off the meta device
            model.tok_embeddings.weight = model.lm_head.weight
        return [model]
    loss = CrossEntropyLoss.Config(global_vocab_size=run.model.vocab_size)
    _, parts, _, _ = spec.pipelining_fn(
        model,
        **common,
        device=torch.device("cpu"),
        model_config=spec.model,
        parallelize_fn=spec.parallelize_fn,
        loss_fn=loss.build(compile_config=CompileConfig()),
    )
    return list(parts)


_DIMS: dict[Any, Any] = {}


def _parallel_dims(run: RunConfig) -> Any:
    """One a mesh: torch keeps device meshes for the life of the process group."""
    from torchtitan.distributed import ParallelDims

    found = run.parallelism
    if found not in _DIMS:
        _DIMS[found] = ParallelDims(
            dp_replicate=found.data_parallel_replicate,
            dp_shard=found.data_parallel_shard,
            cp=found.context_parallel,
            tp=found.tensor_parallel,
            pp=found.pipeline_parallel,
            ep=1,
            world_size=WORLD,
        )
    return _DIMS[found]


def _local_bytes(tensors: list[Any]) -> int:
    local = [value.to_local() if hasattr(value, "to_local") else value for value in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in local)


@contextlib.contextmanager
def _products_of_zeros() -> Iterator[None]:
    """Matrix products have their size but are not computed: nothing here reads a value, and a CPU
    without instructions for bfloat16 takes minutes for them."""
    import torch

    def product(left: Any, right: Any) -> Any:
        return left.new_zeros(left.shape[0], right.shape[1])

    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("mm", product, "CPU")
        yield


def main(parts: list[str]) -> None:
    warnings.simplefilter("ignore")
    os.environ["LOCAL_RANK"] = "0"
    from pretrain_llm.training import cpu

    cpu.enable()
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from torchtitan.distributed import utils

    torch.set_num_threads(1)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=WORLD)
    utils.set_spmd_backend("spmd_types")
    with _products_of_zeros():
        json.dump({part: PARTS[part]() for part in parts}, sys.stdout)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
