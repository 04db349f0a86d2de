"""One row for each rule of the API: a change of the demo's run that breaks it, and a neighbour that
does not. The unit tests put them through `config`, the integration tests through a real API server.
"""

from __future__ import annotations

from . import rule_rows_model, rule_rows_training
from .rule_row import SCRIPT, SFT, Edit, Row, post, soup, sources

__all__ = ("EDITS", "ROWS", "Edit", "Row")

ROWS = (*rule_rows_model.ROWS, *rule_rows_training.ROWS)

EDITS = (
    Edit("started-storage", {"storage.claimName": "other"}, {"suspend": True}),
    Edit("started-model", {"model.dim": 136}, {"checkpoint.interval": 30}),
    Edit("started-model", {"tokenizer.train.vocabSize": 4000}, {"nodes.spares": 1}),
    Edit("started-data", {"data.heldOutFraction": 0.1}, {"data.template": {"image": "a:2"}}),
    Edit("started-data", {"data.sources": sources("a")}, {"recovery.maxApplicationFaults": 9}),
    Edit("started-batches", {"training.seed": 2}, {"nodes.template.image": "a:2"}),
    Edit("started-batches", {"training.globalBatchSize": 8}, {"training.localBatchSize": 4}),
    Edit("started-batches", {"training.sequenceLength": 512}, {"training.wandb": None}),
    Edit("started-optimiser", {"training.optimizer.beta1": 0.8}, {"training.compile": True}),
    Edit(
        "started-optimiser",
        {"training.skipStep": {"window": 64, "deviations": 6.0}},
        {"training.localBatchSize": 1},
    ),
    Edit(
        "started-optimiser",
        {"training.precision": "bfloat16"},
        {"training.activationCheckpointing": "full"},
    ),
    Edit(
        "started-curriculum",
        {"training.curriculum": [{"fromStep": 5, "sequenceLength": 512}]},
        {"training.curriculum": [{"fromStep": 6, "sequenceLength": 512}]},
    ),
    Edit("started-device", {"nodes.deviceResource": "example.com/gpu"}, {"nodes.count": 4}),
    Edit(
        "started-device",
        {"nodes.deviceResource": "nvidia.com/gpu"},
        {"parallelism": {"dataParallelReplicate": 2}},
    ),
    Edit("started-export", {"export.dtype": "bfloat16"}, {"serving": None}),
    Edit("started-length-grows", {"training.steps": 239}, {"training.steps": 241}),
    Edit(
        "started-length-grows",
        {"training.steps": None, "training.tokens": 1e9},
        {"postTraining": post("other")},
    ),
    Edit("trained-length-stays", {"training.steps": 241}, {"suspend": True}, trained=True),
    Edit(
        "exported-soup-stays",
        {"export.soup": soup({}, {"run": "other"})},
        {"export.template": {"image": "a:2"}},
        trained=True,
        found=("exported already",),
    ),
    Edit(
        "finished-post-training-stays",
        {"postTraining": []},
        {"serving.replicas": 3},
        trained=True,
        found=("finished", "after them"),
    ),
    Edit(
        "finished-post-training-stays",
        {"postTraining": post("new", "sft")},
        {"serving.replicas": 4},
        trained=True,
        found=("finished", "after them"),
    ),
    Edit(
        "finished-post-training-stays",
        {"postTraining": [{**SFT, "datasetPath": "chats"}]},
        {"postTraining": [{**SFT, "template": {"image": "a:2"}}]},
        trained=True,
        found=("finished", "after them"),
    ),
    Edit("started-engine", {**SCRIPT, "export": {"dtype": "float32"}}, {"nodes.spares": 0}),
)
