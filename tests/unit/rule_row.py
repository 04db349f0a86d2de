"""What a row of the rules' tables is, and the parts of specs that rows share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .runs import demo_body, set_field

Changes = dict[str, Any]


@dataclass(frozen=True)
class Row:
    rule: str
    bad: Changes  # path: value; below spec unless it begins with metadata
    good: Changes
    found: tuple[str, ...]  # what the message must say: the value, and a word of the remedy
    base: Changes = field(default_factory=dict)  # applied before either

    def body(self, changes: Changes) -> dict[str, Any]:
        body = demo_body()
        for path, value in {**self.base, **changes}.items():
            set_field(body, path if path.startswith("metadata") else f"spec.{path}", value)
        return body


FOUR_NODES = {"nodes.count": 4}
GPT2 = {"model.architecture": "gpt2", "model.numKVHeads": None}
MUON = {"training.optimizer.name": "Muon", "training.optimizer.adamwLearningRate": 3e-3}
CURRICULUM = "training.curriculum"
UNTIED = {"model.tieEmbeddings": False}

SCRIPT: Changes = {
    "script": {"command": ["python", "train.py"], "steps": 100},
    **dict.fromkeys(("model", "tokenizer", "data", "training")),
    **dict.fromkeys(("export", "postTraining", "serving")),
}


def post(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "steps": 1} for name in names]


SFT = {
    "name": "sft",
    "method": "SFT",
    "steps": 40,
    "batchSize": 8,
    "learningRate": 5e-4,
    "maxLength": 256,
}


def sources(*names: str, **weights: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"name": name, "path": f"corpus/{name}"} for name in names]
    return [
        row | ({"weight": weights[row["name"]]} if row["name"] in weights else {}) for row in rows
    ]


def chats(**fields: str) -> dict[str, Any]:
    return {"name": "chats", "path": "corpus/chats", "format": "chat", **fields}


def soup(*ingredients: dict[str, Any]) -> dict[str, Any]:
    return {"ingredients": list(ingredients)}


def weights(*names: str) -> list[dict[str, Any]]:
    return [{"fromStep": 9, "weights": [{"name": name, "weight": 1} for name in names]}]


@dataclass(frozen=True)
class Edit:
    """A change of a started run: one that is refused, and a neighbour that is not."""

    rule: str
    bad: Changes
    good: Changes
    trained: bool = False  # the run has its Training and one PostTraining artifact
    found: tuple[str, ...] = ("another run",)
