"""The small form of a recipe, by rule: what trains in seconds on one CPU and is otherwise the same.

    shapes        at most 4 heads of 16, 4 blocks; the ratios of heads, widths and blocks stay
    data          the same sources and weights, each a small JSON Lines file of the same name
    training      the same optimizer, schedule, decay; 40 steps of 8 sequences of 64
    curriculum    as many segments of equal length, each with the same kind of changes; the second
                  length of sequences is 128, the third 256
    mesh          one rank; `make recipes-dry-run` has the true one
    afterwards    export; neither post-training nor serving

Pure: a PretrainRun's body in, another out. A script has no small form: nobody but its author knows
what is small in it.
"""

from __future__ import annotations

import copy
from typing import Any

STEPS = 40
_HEADS, _HEAD_DIM, _BLOCKS = 4, 16, 4
_VOCABULARY = 512
_LENGTH = 64
_WARMUP_STEPS = 4
_LARGEST_RATE = 1e-2  # of AdamW; published rates are for millions of tokens a step
_LATER_RATE = 2e-3


def tiny(body: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(body)
    result["metadata"] = {"name": f"{body['metadata']['name']}-tiny"}
    spec = result["spec"]
    spec["storage"] = {"claimName": "tiny"}
    spec["model"] = _model(spec["model"])
    spec["tokenizer"] = {"train": {"vocabSize": _VOCABULARY}}
    spec["data"] = {"sources": [_source(source) for source in spec["data"]["sources"]]}
    spec["training"] = _training(spec["training"])
    spec["nodes"] = {"count": 1, "devicesPerNode": 1, "deviceResource": ""}
    spec["checkpoint"] = _checkpoint(spec["checkpoint"])
    for later in ("parallelism", "postTraining", "serving"):
        spec.pop(later, None)
    return result


def _model(model: dict[str, Any]) -> dict[str, Any]:
    heads = min(_HEADS, model["numHeads"])
    dim = heads * _HEAD_DIM
    small = {
        **model,
        "dim": dim,
        "numLayers": min(_BLOCKS, model["numLayers"]),
        "numHeads": heads,
        "ffnHiddenDim": -(-dim * model["ffnHiddenDim"] // model["dim"] // 16) * 16,
        "vocabSize": _VOCABULARY,
    }
    if "numKVHeads" in model:
        groups = min(heads, model["numHeads"] // model["numKVHeads"])
        small["numKVHeads"] = heads // groups if heads % groups == 0 else 1
    return small


def _source(source: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in source.items() if key in ("name", "weight")}
    form = "chat" if source.get("format") == "chat" else "jsonl"
    return {**kept, "path": f"corpus/{source['name']}.jsonl", "format": form}


def _training(training: dict[str, Any]) -> dict[str, Any]:
    small = {
        **training,
        "sequenceLength": _LENGTH,
        "globalBatchSize": 8,
        "steps": STEPS,
        "precision": "float32",
        "compile": False,
        "optimizer": _optimizer(training["optimizer"]),
        "schedule": _schedule(training["schedule"], training),
    }
    if "curriculum" in training:
        small["curriculum"] = _curriculum(training)
    for key in ("tokens", "localBatchSize", "activationCheckpointing"):
        small.pop(key, None)
    return small


def _schedule(schedule: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    small = {**schedule, "warmupSteps": min(_WARMUP_STEPS, schedule["warmupSteps"])}
    if "steps" in schedule:
        small["steps"] = max(1, round(STEPS * schedule["steps"] / training["steps"]))
    return small


def _curriculum(training: dict[str, Any]) -> list[dict[str, Any]]:
    segments = training["curriculum"]
    stated = [each["sequenceLength"] for each in segments if "sequenceLength" in each]
    lengths = list(dict.fromkeys((training["sequenceLength"], *stated)))
    return [
        _segment(segment, training, STEPS * number // (len(segments) + 1), lengths)
        for number, segment in enumerate(segments, start=1)
    ]


def _segment(
    segment: dict[str, Any], training: dict[str, Any], start: int, lengths: list[int]
) -> dict[str, Any]:
    small = {**segment, "fromStep": start}
    for key in ("globalBatchSize", "localBatchSize"):
        small.pop(key, None)
    if "sequenceLength" in segment:
        small["sequenceLength"] = _LENGTH << lengths.index(segment["sequenceLength"])
    if "learningRate" in segment and training["optimizer"]["name"] == "AdamW":
        small["learningRate"] = _LATER_RATE
    if "schedule" in segment:
        small["schedule"] = _schedule(segment["schedule"], training)
    return small


def _optimizer(optimizer: dict[str, Any]) -> dict[str, Any]:
    """AdamW's rate goes up, as the batch is a hundredth; Muon's are for any width as they are."""
    if optimizer["name"] != "AdamW":
        return dict(optimizer)
    return {**optimizer, "learningRate": _LARGEST_RATE}


def _checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    steps = [step for step in checkpoint.get("keepSteps", ()) if step <= STEPS]
    small = {"interval": STEPS // 2}
    return {**small, "keepSteps": steps} if steps else small
