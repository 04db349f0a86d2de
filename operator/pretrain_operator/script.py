"""A run of a program of the user's: its rules in Python, its part of the configuration. Pure.

The same rules in CEL: `api.script_rules`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pretrain_llm.contract import config as contract

from .api.script import Script
from .api.spec import ScriptSpec
from .spec_error import SpecError

_UNSPREAD = {
    "data_parallel_replicate": ("dataParallelReplicate", 1),
    "data_parallel_shard": ("dataParallelShard", -1),
    "tensor_parallel": ("tensorParallel", 1),
    "pipeline_parallel": ("pipelineParallel", 1),
    "context_parallel": ("contextParallel", 1),
}


def script_violations(spec: ScriptSpec) -> Iterator[SpecError]:
    yield from _beside(spec)
    yield from _spread(spec)
    yield from _insight(spec)


def script_config(script: Script) -> contract.ScriptConfig:
    return contract.ScriptConfig(
        command=script.command,
        steps=script.steps,
        working_directory=script.working_directory,
    )


def _beside(spec: ScriptSpec) -> Iterator[SpecError]:
    parts = {
        "model": spec.model,
        "tokenizer": spec.tokenizer,
        "data": spec.data,
        "training": spec.training,
        "serving": spec.serving,
        "postTraining": spec.post_training or None,
    }
    for name in (name for name, value in parts.items() if value is not None):
        remedy = (
            "script is the whole training; export, post-training and serving need checkpoints of"
            " torchtitan's: leave it out, or leave script out"
        )
        yield SpecError("script-alone", f"spec.{name}", "is set", remedy)


def _spread(spec: ScriptSpec) -> Iterator[SpecError]:
    remedy = "script spreads its model and writes its files itself; leave it out"
    for name, (field, default) in _UNSPREAD.items():
        value = getattr(spec.parallelism, name)
        if value != default:
            field = f"spec.parallelism.{field}"
            yield SpecError("script-spreads-itself", field, value, remedy)
    if (dtype := spec.export.dtype) != "bfloat16":
        yield SpecError("script-spreads-itself", "spec.export.dtype", dtype, remedy)
    if spec.export.soup is not None:
        yield SpecError("script-spreads-itself", "spec.export.soup", "is set", remedy)


def _insight(spec: ScriptSpec) -> Iterator[SpecError]:
    recovery = spec.recovery
    action = recovery.stragglers.action
    found = {
        "checkpoint.memory.interval": spec.checkpoint.memory and spec.checkpoint.memory.interval,
        "recovery.loss.spikeFactor": recovery.loss.spike_factor,
        "recovery.stragglers.action": action if action == "Replace" else None,
    }
    remedy = "needs torchtitan's state, batches or timing, which a script keeps; leave it out"
    for name, value in found.items():
        if value is not None:
            yield SpecError("script-keeps-its-state", f"spec.{name}", value, remedy)
