"""A Hugging Face model folder: written here, loaded by transformers and vLLM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from .. import models
from ..contract.config import ModelConfig
from ..contract.layout import MANIFEST
from ..data.index import ShardIndex
from ..tokenizer import PAD, TOKENIZER, TURN_END

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def write_weights(folder: Path, weights: dict[str, torch.Tensor], dtype: str) -> None:
    """model.safetensors, or several of them with an index where they are large."""
    written = {name: tensor.to(DTYPES[dtype]) for name, tensor in weights.items()}
    save_torch_state_dict(written, folder, metadata={"format": "pt"})
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # the library's 0600 would lock out a server that runs as another user


def write_configs(
    folder: Path, model: ModelConfig, sequence_length: int, dtype: str, token_ids: dict[str, Any]
) -> None:
    """`token_ids`: from `special_token_ids`."""
    shapes = models.architecture(model.architecture).hf_config(model, sequence_length)
    first_eos = {**token_ids, "eos_token_id": token_ids["eos_token_id"][0]}
    _write_json(folder / "config.json", {**shapes, **first_eos, "dtype": dtype})
    _write_json(folder / "generation_config.json", token_ids)


def special_token_ids(tokenizer: Path, index: ShardIndex) -> dict[str, Any]:
    """How generation starts, ends and pads: a text ends with EOS, an answer with the turn's end."""
    added = json.loads((tokenizer / TOKENIZER).read_bytes()).get("added_tokens") or ()
    ids = {token["content"]: token["id"] for token in added}
    ends = [index.eos_id, *([ids[TURN_END]] if TURN_END in ids else [])]
    return {
        "bos_token_id": index.eos_id,
        "eos_token_id": ends,
        "pad_token_id": ids.get(PAD, index.eos_id),
    }


def copy_tokenizer(source: Path, folder: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name != MANIFEST:
            shutil.copyfile(path, folder / path.name)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
