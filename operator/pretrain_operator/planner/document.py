"""A plan as JSON and its suggestion as YAML: plain values, units in the names."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from .assumptions import DEVICES, Assumptions
from .memory import MemoryPlan
from .meshes import Suggestion
from .plan import RunPlan


def document(name: str, plan: RunPlan) -> dict[str, Any]:
    """What `-o json` prints. Keys are stable; new ones may come."""
    training, parallelism = plan.config.training, plan.config.parallelism
    return {
        "run": name,
        "fits": plan.memory.fits,
        "parameters": asdict(plan.parameters),
        "tokens": plan.tokens,
        "tokensPerParameter": plan.tokens / plan.parameters.total,
        "steps": training.steps,
        "mesh": {
            **asdict(parallelism),
            "local_batch_size": training.local_batch_size,
            "accumulation": plan.accumulation,
            "activation_checkpointing": training.activation_checkpointing,
        },
        "compute": asdict(plan.compute),
        "memory": memory_document(plan.memory),
        "smaller": [
            {"nodes": run.nodes, "memory": memory_document(run.memory)} for run in plan.smaller
        ],
        "reliability": asdict(plan.reliability),
        "deviceHours": plan.device_hours,
        "dollars": plan.dollars,
        "segments": [asdict(segment) for segment in plan.segments],
        "problems": [str(problem) for problem in plan.problems],
        "advice": [asdict(line) for line in plan.advice],
        "suggestion": None if plan.suggestion is None else _suggestion(plan.suggestion),
        "assumptions": assumptions_document(plan.assumptions),
    }


def memory_document(memory: MemoryPlan) -> dict[str, Any]:
    return {**asdict(memory), "total_bytes": memory.total_bytes, "fits": memory.fits}


def assumptions_document(given: Assumptions) -> dict[str, Any]:
    return {
        **asdict(given),
        "peak_flops": given.peak_flops,
        "device_bytes": given.device_bytes,
        "device_source": DEVICES[given.device].source,
    }


def fragment(suggestion: Suggestion) -> str:
    """YAML to be merged into the run's manifest."""
    training, mesh = suggestion.config.training, suggestion.config.parallelism
    spec = {
        "training": {
            "localBatchSize": training.local_batch_size,
            "activationCheckpointing": training.activation_checkpointing,
        },
        "parallelism": {
            "dataParallelReplicate": mesh.data_parallel_replicate,
            "dataParallelShard": mesh.data_parallel_shard,
            "tensorParallel": mesh.tensor_parallel,
            "pipelineParallel": mesh.pipeline_parallel,
            "contextParallel": mesh.context_parallel,
        },
    }
    text: str = yaml.safe_dump({"spec": spec}, sort_keys=False)
    return text


def _suggestion(suggestion: Suggestion) -> dict[str, Any]:
    return {
        **yaml.safe_load(fragment(suggestion)),
        "accumulation": suggestion.accumulation,
        "memory": memory_document(suggestion.memory),
        "cost": asdict(suggestion.cost),
    }
