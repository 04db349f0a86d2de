"""Tiny runs for the tests of the training side: a configuration, a tokenizer and packed shards.

The text is synthetic and deterministic, with structure to learn, so that the loss falls.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_llm import artifacts, tokenizer
from pretrain_llm.contract import codec, config
from pretrain_llm.contract.layout import Layout
from pretrain_llm.contract.manifests import ArtifactManifest
from pretrain_llm.data.index import INDEX, Shard, ShardIndex

VOCAB_SIZE = 256
EOS = 0


def family_model(architecture: str, **changes: Any) -> config.ModelConfig:
    """A model of the family that trains in a second."""
    model = config.ModelConfig(
        architecture=architecture,
        dim=64,
        num_layers=4 if architecture == "smollm3" else 2,  # the fourth has no positions
        num_heads=4,
        num_kv_heads=4 if architecture in config.UNGROUPED else 2,
        ffn_hidden_dim=128,
        vocab_size=VOCAB_SIZE,
        rope_theta=10000.0,
        norm_eps=1e-5,
        tie_embeddings=True,
        max_positions=64 if architecture in config.LEARNED_POSITIONS else None,
    )
    return replace(model, **changes)


def run_config(volume: Path, name: str = "tiny", **changes: Any) -> config.RunConfig:
    """A run of one CPU rank; `changes` are those of `changed`."""
    run = config.RunConfig(
        run=name,
        volume=str(volume),
        model=family_model("llama"),
        tokenizer=config.TokenizerConfig(train_vocab_size=VOCAB_SIZE),
        data=config.DataConfig(sources=(), held_out_fraction=0.1),
        training=config.TrainingConfig(
            sequence_length=32,
            global_batch_size=8,
            local_batch_size=4,
            steps=8,
            optimizer=config.OptimizerConfig("AdamW", 1e-2, 0.1, 0.9, 0.95, 1e-8),
            schedule=config.ScheduleConfig(2, "linear", 0.5, 0.1),
            gradient_clip_norm=1.0,
            precision="float32",
            activation_checkpointing="none",
            compile=False,
            seed=1,
        ),
        nodes=config.NodesConfig(count=1, spares=0, devices_per_node=1, device="cpu"),
        parallelism=config.ParallelismConfig(1, 1, 1, 1),
        checkpoint=config.CheckpointConfig(interval=2, keep_latest=2),
        export=config.ExportConfig(dtype="float32"),
    )
    return changed(run, **changes)


def changed(run: config.RunConfig, **changes: Any) -> config.RunConfig:
    """A copy with fields of a section replaced: `changed(run, training={"steps": 4})`."""
    sections = {
        name: replace(getattr(run, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(run, **sections)


def mesh(
    replicate: int = 1, shard: int = 1, tensor: int = 1, pipeline: int = 1, context: int = 1
) -> dict[str, int]:
    return {
        "data_parallel_replicate": replicate,
        "data_parallel_shard": shard,
        "tensor_parallel": tensor,
        "pipeline_parallel": pipeline,
        "context_parallel": context,
    }


def write_config(run: config.AnyConfig, path: Path) -> Path:
    path.write_text(codec.to_json(run))
    return path


def write_data(layout: Layout, *, tokens: int = 4000, seed: int = 0) -> ShardIndex:
    """What a finished Data stage leaves."""
    _write_tokenizer(Path(layout.tokenizer))
    folder = Path(layout.data)
    train = tuple(_shard(folder, f"train/{n}.bin", tokens // 2, seed + n) for n in range(2))
    heldout = (_shard(folder, "heldout/0.bin", 400, seed + 9),)
    index = ShardIndex(
        token_bytes=2,
        vocab_size=VOCAB_SIZE,
        eos_id=EOS,
        tokenizer_fingerprint=tokenizer.fingerprint(Path(layout.tokenizer)),
        train=train,
        heldout=heldout,
        heldout_bytes=380,
    )
    (folder / INDEX).write_text(codec.to_json(index))
    manifest = ArtifactManifest(
        "Data", f"seed {seed}", index.tokenizer_fingerprint, artifacts.entries(folder)
    )
    artifacts.write_manifest(folder, manifest)
    return index


def _shard(folder: Path, name: str, tokens: int, seed: int) -> Shard:
    """Documents of 20 tokens that count up in steps of their own, each closed by EOS."""
    generator = np.random.default_rng(seed)
    documents = []
    for _ in range(-(-tokens // 20)):
        start, stride = generator.integers(1, 200), generator.integers(1, 4)
        counted = 1 + (start + stride * np.arange(19)) % (VOCAB_SIZE - 1)
        documents.append(np.append(counted, EOS))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.concatenate(documents)[:tokens].astype("<u2").tofile(path)
    return Shard(name, tokens)


def _write_tokenizer(folder: Path) -> None:
    """A word-level tokenizer whose words are w1, w2, ..., beside the special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    specials = tokenizer.SPECIAL_TOKENS
    words = [*specials, *(f"w{number}" for number in range(len(specials), VOCAB_SIZE))]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(words.index(name), name) for name in specials],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(words)},
            "unk_token": tokenizer.PAD,
        },
    }
    (folder / tokenizer.TOKENIZER).write_text(json.dumps(document))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.END_OF_TEXT,
        "pad_token": tokenizer.PAD,
        "chat_template": tokenizer.CHAT_TEMPLATE,
    }
    (folder / tokenizer.TOKENIZER_CONFIG).write_text(json.dumps(settings))


def _added(number: int, content: str) -> dict[str, object]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": content, **flags, "special": True}
