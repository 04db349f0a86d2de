"""The Data stage: sources to tokenizer, shards, held-out split and a small chat set.

    sources --read--> tokenizer --tokenise--> documents --split, shuffle--> shards --> manifest
    chats ---------------------^ through its chat template

Works in a folder beside the result and renames it when whole, so that a stage killed at any time
starts again from nothing and ends with the same bytes.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..artifacts import (
    entries,
    finished,
    fresh_folder,
    publish,
    write_atomically,
    write_manifest,
)
from ..contract import codec, config
from ..contract.config import DataConfig, RunConfig
from ..contract.curriculum import segments
from ..contract.manifests import ArtifactManifest
from ..contract.results import StageResult
from ..errors import InputError
from ..tokenizer import fingerprint
from . import packing
from .chat import chat_set
from .conversations import BadRowError
from .index import CHAT, INDEX, ShardIndex, open_shards, token_bytes
from .packed import check_one_sample
from .sources import SourceFile, UnreadableFileError, source_files
from .tokenise import cpus, tokenise
from .vocabulary import Vocabulary, chat_template, check_fits, write_tokenizer

_FORMAT = 2  # of what this stage writes: raise it when the same inputs give other bytes


def build(run: RunConfig) -> StageResult:
    """Makes the run's tokenizer and data folders, or finds them whole. Raises InputError."""
    data, tokenizer = Path(run.layout.data), Path(run.layout.tokenizer)
    files = source_files(run)
    digest = inputs_digest(run, files)
    try:
        result = already_there(data, tokenizer, digest) or _make(run, files, digest)
    except BadRowError as error:
        raise error.as_input_error("spec.data.sources") from error
    except UnreadableFileError as error:
        raise InputError(
            str(error),
            field="spec.data.sources",
            value=", ".join(source.path for source in run.data.sources),
            remedy="Mend or remove the file, or state the format that it has.",
        ) from error
    index = open_shards(data, fingerprint(tokenizer))
    check_fits(index.vocab_size, run.model.vocab_size)
    check_samples(index, run)
    return result


def check_samples(index: ShardIndex, run: RunConfig) -> None:
    """Raises InputError unless there is a sample of every source that a segment reads."""
    for segment in segments(run):
        length = segment.run.training.sequence_length
        check_one_sample(index.train_tokens, length)
        for name in segment.run.data.weights or ():
            tokens = sum(shard.tokens for shard in index.train if shard.source == name)
            check_one_sample(tokens, length, name)


def inputs_digest(run: RunConfig, files: list[SourceFile]) -> str:
    """Digest of all that the shards are a function of: neither model nor sequence length."""
    given = run.tokenizer.path and run.located(run.tokenizer.path)
    has_chats = any(source.is_chat for source in run.data.sources)
    return config.digest(
        ({"chatTemplate": chat_template(run)} if has_chats else {})
        | {
            "format": _FORMAT,
            "tokenizer": run.tokenizer,
            "given": fingerprint(Path(given)) if given and Path(given).is_dir() else None,
            "data": _without_weights(run.data),
            "seed": run.training.seed,
            "files": [(file.name, file.bytes) for file in files],
        }
    )


def _without_weights(data: DataConfig) -> DataConfig:
    """Shards are made a source each; how they are mixed is the reader's."""
    return replace(data, sources=tuple(replace(source, weight=None) for source in data.sources))


def already_there(data: Path, tokenizer: Path, digest: str) -> StageResult | None:
    """The result of an earlier execution whose shards and tokenizer are whole."""
    result = finished(data, digest)
    if result is None:
        return None
    try:
        open_shards(data, fingerprint(tokenizer))
    except (InputError, OSError, ValueError):
        return None
    return result


def metrics(index: ShardIndex, documents: packing.Documents) -> dict[str, float]:
    text_bytes = int(documents.bytes.sum())
    text_tokens = index.train_tokens + index.heldout_tokens - len(documents)  # without EOS
    return {
        "trainTokens": index.train_tokens,
        "heldOutTokens": index.heldout_tokens,
        "heldOutBytes": index.heldout_bytes,
        "documents": len(documents),
        "bytes": text_bytes,
        "bytesPerToken": round(text_bytes / text_tokens, 4),
        "vocabSize": index.vocab_size,
    }


def _make(run: RunConfig, files: list[SourceFile], digest: str) -> StageResult:
    started = time.monotonic()
    _log(f"{len(files)} file(s) to read with {cpus()} CPU(s)")
    data, tokenizer = Path(run.layout.data), Path(run.layout.tokenizer)
    partial = fresh_folder(tokenizer)
    vocabulary = write_tokenizer(partial, run, files)
    publish(partial, tokenizer)
    _log(f"tokenizer of {vocabulary.size} tokens after {time.monotonic() - started:.1f} s")
    index, documents = _make_shards(run, files, data, tokenizer, vocabulary)
    manifest = ArtifactManifest(
        stage="Data",
        inputs_digest=digest,
        tokenizer_fingerprint=index.tokenizer_fingerprint,
        files=entries(data),
        metrics=metrics(index, documents),
        versions={name: version(name) for name in ("datatrove", "tokenizers", "numpy")},
        seconds=round(time.monotonic() - started, 3),
    )
    _log(f"{index.train_tokens} training tokens after {manifest.seconds:.1f} s")
    return write_manifest(data, manifest)


def _make_shards(
    run: RunConfig, files: list[SourceFile], data: Path, tokenizer: Path, vocabulary: Vocabulary
) -> tuple[ShardIndex, packing.Documents]:
    partial, scratch = fresh_folder(data), fresh_folder(data.with_name(f"{data.name}-tokens"))
    width = token_bytes(vocabulary.size)
    tasks = tokenise(files, tokenizer, vocabulary.eos, scratch, token_bytes=width)
    documents = packing.documents(tasks)
    limit = packing.heldout_limit(documents.hash, run.data.held_out_fraction)
    held_out = documents.hash <= limit
    train, rest = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    shuffled = packing.training_order(train, run.training.seed)
    names = [source.name for source in run.data.sources]
    index = ShardIndex(
        token_bytes=width,
        vocab_size=vocabulary.size,
        eos_id=vocabulary.eos_id,
        tokenizer_fingerprint=fingerprint(tokenizer),
        train=packing.write_sources(partial, names, tasks, documents, shuffled),
        heldout=packing.write_shards(partial, "heldout", tasks, documents, rest),
        heldout_bytes=int(documents.bytes[rest].sum()),
    )
    write_atomically(partial / INDEX, codec.to_json(index))
    examples = chat_set(files, heldout_limit=limit)
    write_atomically(partial / CHAT, "".join(json.dumps(row) + "\n" for row in examples))
    publish(partial, data)
    shutil.rmtree(scratch)
    return index, documents


def _log(message: str) -> None:
    print(f"data: {message}", flush=True)
