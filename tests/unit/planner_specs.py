"""Specs for the planner's tests: YAML-shaped objects with a section replaced."""

from __future__ import annotations

import copy
from typing import Any

from pretrain_operator.api.spec import RunSpec

from .planner_row import Row

DEMO: dict[str, Any] = {
    "storage": {"claimName": "runs"},
    "model": {
        "architecture": "llama",
        "dim": 2048,
        "numLayers": 16,
        "numHeads": 32,
        "numKVHeads": 8,
        "ffnHiddenDim": 8192,
        "vocabSize": 32768,
        "tieEmbeddings": True,
    },
    "tokenizer": {"path": "tokenizer"},
    "data": {"sources": [{"name": "web", "path": "web"}]},
    "training": {
        "sequenceLength": 2048,
        "globalBatchSize": 512,
        "localBatchSize": 8,
        "tokens": 50e9,
        "optimizer": {"name": "AdamW", "learningRate": 6e-4},
    },
    "nodes": {"count": 2, "devicesPerNode": 8},
}


def document(**sections: dict[str, Any]) -> dict[str, Any]:
    """A llama of 1B on 16 devices; sections are merged over it, as in `document(nodes={...})`."""
    spec = copy.deepcopy(DEMO)
    for name, fields in sections.items():
        spec[name] = {**spec.get(name, {}), **fields}
    return spec


def spec(**sections: dict[str, Any]) -> RunSpec:
    return RunSpec.model_validate(document(**sections))


def row_spec(row: Row) -> RunSpec:
    layers, dim, heads, kv_heads, ffn, vocabulary = row.shape
    replicate, shard, tensor, pipeline = row.mesh
    return spec(
        model={
            "dim": dim,
            "numLayers": layers,
            "numHeads": heads,
            "numKVHeads": kv_heads,
            "ffnHiddenDim": ffn,
            "vocabSize": vocabulary,
            "tieEmbeddings": row.tied,
        },
        training={
            "sequenceLength": row.sequence,
            "globalBatchSize": row.batch,
            "localBatchSize": row.local_batch,
            "tokens": row.tokens,
            "activationCheckpointing": row.checkpointing,
        },
        nodes={"count": row.gpus // 8, "devicesPerNode": 8},
        parallelism={
            "dataParallelReplicate": replicate,
            "dataParallelShard": shard,
            "tensorParallel": tensor,
            "pipelineParallel": pipeline,
        },
    )
