"""What the Data stage left, as a worker needs it: shards, tokenizer, and what identifies both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import artifacts, tokenizer
from ..checkpoints.selection import Identity
from ..contract.config import RunConfig, digest
from ..contract.layout import Layout
from ..data.index import ShardIndex, open_shards
from ..errors import InputError
from . import mesh


@dataclass(frozen=True)
class Inputs:
    folder: Path  # of the shards
    index: ShardIndex
    tokenizer: Path
    data_digest: str


def open_inputs(run: RunConfig) -> Inputs:
    """Checks sizes and fingerprints, not checksums: every rank reads this. Raises InputError."""
    index, data_digest = _finished_data(run.layout)
    folder = Path(run.layout.tokenizer)
    tokenizer.check(folder, index.tokenizer_fingerprint, field="spec.tokenizer")
    if index.vocab_size > run.model.vocab_size:
        raise InputError(
            f"the tokenizer has {index.vocab_size} tokens, more than the model",
            field="spec.model.vocabSize",
            value=run.model.vocab_size,
            remedy=f"Start a run under another name with {index.vocab_size} or more, "
            "or with a smaller tokenizer.",
        )
    return Inputs(Path(run.layout.data), index, folder, data_digest)


def identity(run: RunConfig, inputs: Inputs) -> Identity:
    return Identity(
        model_fingerprint=run.model.fingerprint,
        tokenizer_fingerprint=inputs.index.tokenizer_fingerprint,
        data_digest=inputs.data_digest,
        config_digest=digest(run),
        world_size=mesh.world_size(run.parallelism),
    )


def _finished_data(layout: Layout) -> tuple[ShardIndex, str]:
    folder = Path(layout.data)
    manifest = artifacts.read_manifest(folder)
    if manifest is None:
        raise InputError(
            "the Data stage has not finished there",
            field="spec.data",
            value=folder,
            remedy="Let the Data stage finish first.",
        )
    index = open_shards(folder, manifest.tokenizer_fingerprint)
    return index, artifacts.artifact_digest(manifest)
