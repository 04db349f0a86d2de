"""Which tokenizer a folder holds, and whether it is the one that something was made with.

Standard library only: data, training, export, post-training and serving all check with the same
code, and the serving image has no other package of ours. Trains and loads no tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .contract import config
from .errors import InputError

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"  # wins over the template in the configuration

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
PAD = "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, PAD)

# ChatML: https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md
# The generation markers say which tokens an assistant writes, for a loss on these alone.
TRAINING_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Servers know Jinja, but not all of them know the markers.
CHAT_TEMPLATE = TRAINING_CHAT_TEMPLATE.replace("{% generation %}", "").replace(
    "{% endgeneration %}", ""
)


def fingerprint(folder: Path) -> str:
    """SHA-256 of everything in tokenizer.json that decides which ids a text becomes.

    Padding, truncation and post-processing are left out: libraries rewrite them when they save.
    Raises OSError, and ValueError where the file is no tokenizer.
    """
    document = json.loads((folder / TOKENIZER).read_bytes())
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise ValueError(f"{folder / TOKENIZER} is not a tokenizer")
    return config.digest(_identity(document))


def check(folder: Path, expected: str, field: str) -> None:
    """Raises InputError unless the folder holds the tokenizer with this fingerprint."""
    try:
        found = fingerprint(folder)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no readable {TOKENIZER} in {folder}: {error}",
            field=field,
            value=folder,
            remedy="Let the stage that writes it finish, or name another folder.",
        ) from error
    if found != expected:
        raise InputError(
            f"the tokenizer in {folder} is not {expected[:12]}, which the rest was made with",
            field=field,
            value=found[:12],
            remedy="Use one tokenizer for data, training and serving; "
            "delete what was made with the other one.",
        )


def _identity(document: dict[str, Any]) -> dict[str, Any]:
    model = document["model"]
    return {
        "type": model.get("type"),
        "vocab": model.get("vocab"),
        "merges": [_merge(merge) for merge in model.get("merges") or ()],
        "added": sorted(
            (token["id"], token["content"], bool(token.get("special")))
            for token in document.get("added_tokens") or ()
        ),
        "normalizer": document.get("normalizer"),
        "pre_tokenizer": document.get("pre_tokenizer"),
    }


def _merge(merge: str | list[str]) -> list[str]:
    """Old files write a merge as "a b", new ones as ["a", "b"]."""
    return merge.split(" ", 1) if isinstance(merge, str) else merge
