"""Makes the run's tokenizer folder: trains a byte-level BPE, or completes one that is given.

The folder loads with transformers' AutoTokenizer and vLLM. Reads documents; packs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ..contract.config import RunConfig
from ..errors import InputError
from ..tokenizer import (
    CHAT_TEMPLATE,
    CHAT_TEMPLATE_FILE,
    END_OF_TEXT,
    PAD,
    SPECIAL_TOKENS,
    TOKENIZER,
    TOKENIZER_CONFIG,
)
from .sources import SourceFile, in_turn

SAMPLE_BYTES = 64 << 20  # of text that a BPE is trained on; its merges settle far earlier
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)  # every byte has a token: no text is unknown


@dataclass(frozen=True)
class Vocabulary:
    """What the shards need to know of the tokenizer that was written."""

    size: int
    eos: str
    eos_id: int


def write_tokenizer(folder: Path, run: RunConfig, files: list[SourceFile]) -> Vocabulary:
    """Writes tokenizer.json and tokenizer_config.json into an empty folder. Raises InputError."""
    if run.tokenizer.path is not None:
        tokenizer, settings = _loaded(Path(run.located(run.tokenizer.path)))
    else:
        size = run.tokenizer.train_vocab_size
        assert size is not None  # one of the two is set
        _check_trained_size(size, run.model.vocab_size)
        _check_text(files)
        tokenizer, settings = _trained(size, sample(files)), _settings({})
    check_fits(tokenizer.get_vocab_size(), run.model.vocab_size)
    tokenizer.save(str(folder / TOKENIZER))
    (folder / TOKENIZER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
    eos = settings["eos_token"]
    return Vocabulary(tokenizer.get_vocab_size(), eos, tokenizer.token_to_id(eos))


def check_fits(tokens: int, model_vocab_size: int) -> None:
    """Raises InputError where the model has no row for some token."""
    if tokens > model_vocab_size:
        raise InputError(
            f"the tokenizer has {tokens} tokens, more than the model",
            field="spec.model.vocabSize",
            value=model_vocab_size,
            remedy=f"Set it to {tokens} or more, or use a smaller tokenizer.",
        )


def sample(files: list[SourceFile]) -> Iterator[str]:
    """Up to SAMPLE_BYTES of text from all sources; of chats nothing."""
    total = 0
    for text in in_turn(files):
        yield text
        total += len(text.encode())
        if total >= SAMPLE_BYTES:
            return


def _trained(vocab_size: int, texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _check_trained_size(vocab_size: int, model_vocab_size: int) -> None:
    if vocab_size < MIN_VOCAB_SIZE:
        raise InputError(
            "too small for a byte-level vocabulary",
            field="spec.tokenizer.train.vocabSize",
            value=vocab_size,
            remedy=f"Use at least {MIN_VOCAB_SIZE}: 256 bytes and the special tokens.",
        )
    check_fits(vocab_size, model_vocab_size)


def _check_text(files: list[SourceFile]) -> None:
    """Raises InputError where there is nothing to train a tokenizer on."""
    if all(file.is_chat for file in files):
        raise InputError(
            "a tokenizer is trained on text, and all sources are chats",
            field="spec.tokenizer.train",
            value=", ".join(dict.fromkeys(file.source.name for file in files)),
            remedy="Add a source of text, or name a tokenizer in spec.tokenizer.path.",
        )


def chat_template(run: RunConfig) -> Any:
    """Of the tokenizer that is going to be written: the given one's own, or ours."""
    given = run.tokenizer.path
    return _settings(_given(Path(run.located(given))) if given else {})["chat_template"]


def _given(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, as far as there is one."""
    path, template = folder / TOKENIZER_CONFIG, folder / CHAT_TEMPLATE_FILE
    given: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    if template.is_file():  # where newer libraries keep it
        given["chat_template"] = template.read_text()
    return given


def _loaded(folder: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer of a folder, with what it lacks for documents and chat."""
    tokenizer, settings = _read(folder), _settings(_given(folder))
    own_chat = settings["chat_template"] != CHAT_TEMPLATE
    needed = [settings["eos_token"], settings["pad_token"]]
    missing = needed if own_chat else [*SPECIAL_TOKENS, *needed]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in missing])
    return tokenizer, settings


def _read(folder: Path) -> Tokenizer:
    path = folder / TOKENIZER
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise InputError(
            f"no tokenizer to load from {path}: {error}",
            field="spec.tokenizer.path",
            value=folder,
            remedy=f"Name a folder with a {TOKENIZER}, or let the run train one.",
        ) from error


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json: what is given wins, but a token that is null counts as missing."""
    ours: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "chat_template": CHAT_TEMPLATE,
    }
    settings = ours | {name: value for name, value in given.items() if value is not None}
    return settings | {name: _token_text(settings[name]) for name in ("eos_token", "pad_token")}


def _token_text(token: str | dict[str, Any]) -> str:
    """tokenizer_config.json writes a token as its text, or as an object with `content`."""
    return token if isinstance(token, str) else token["content"]
