"""A tokenizer's identity: what changes ids changes it, what libraries rewrite does not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest

from pretrain_llm import tokenizer
from pretrain_llm.errors import InputError

DOCUMENT = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {"id": 0, "content": "<|endoftext|>", "special": True, "lstrip": False},
        {"id": 1, "content": "<|im_end|>", "special": True, "lstrip": False},
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    "post_processor": None,
    "model": {
        "type": "BPE",
        "vocab": {"<|endoftext|>": 0, "<|im_end|>": 1, "a": 2, "b": 3, "ab": 4, "abb": 5},
        "merges": [["a", "b"], ["ab", "b"]],
    },
}

Change = Callable[[dict[str, Any]], object]


def write(folder: Path, document: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / tokenizer.TOKENIZER).write_text(json.dumps(document, indent=2))
    return folder


def changed(change: Change) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    return document


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(padding={"strategy": "BatchLongest"}, truncation={"max_length": 8}),
        lambda d: d.update(post_processor={"type": "TemplateProcessing"}),
        lambda d: d["model"].update(merges=["a b", "ab b"]),
        lambda d: d["added_tokens"].reverse(),
        lambda d: d["model"].update(vocab=dict(reversed(d["model"]["vocab"].items()))),
    ],
    ids=["padding", "post-processor", "old-merges", "order-of-added", "order-of-vocab"],
)
def test_fingerprint_form_rewritten_stays(change: Change, tmp_path: Path) -> None:
    one = tokenizer.fingerprint(write(tmp_path / "one", DOCUMENT))
    assert tokenizer.fingerprint(write(tmp_path / "two", changed(change))) == one


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["model"]["vocab"].update(a=3, b=2),
        lambda d: d["model"]["merges"].reverse(),
        lambda d: d["added_tokens"].pop(),
        lambda d: d["added_tokens"][1].update(special=False),
        lambda d: d["pre_tokenizer"].update(add_prefix_space=True),
        lambda d: d.update(normalizer={"type": "NFC"}),
    ],
    ids=["vocab", "merges", "added", "special", "pre-tokenizer", "normalizer"],
)
def test_fingerprint_ids_changed_differs(change: Change, tmp_path: Path) -> None:
    one = tokenizer.fingerprint(write(tmp_path / "one", DOCUMENT))
    assert tokenizer.fingerprint(write(tmp_path / "two", changed(change))) != one


def test_check_same_tokenizer_passes(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", DOCUMENT)
    tokenizer.check(folder, tokenizer.fingerprint(folder), "spec.tokenizer")


def test_check_other_tokenizer_names_field_and_remedy(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", DOCUMENT)
    found = tokenizer.fingerprint(folder)
    with pytest.raises(InputError, match="is not 0000") as caught:
        tokenizer.check(folder, "0" * 64, "spec.tokenizer")
    error = caught.value
    assert (error.field, error.value) == ("spec.tokenizer", found[:12])
    assert "one tokenizer" in error.remedy


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model": 1}'])
def test_check_unreadable_tokenizer_names_folder(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / tokenizer.TOKENIZER).write_text(content)
    with pytest.raises(InputError, match=r"no readable tokenizer\.json") as caught:
        tokenizer.check(tmp_path, "0" * 64, "spec.tokenizer.path")
    assert caught.value.value == tmp_path


def test_chat_template_conversation_renders_chatml() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rendered = jinja2.Template(tokenizer.CHAT_TEMPLATE).render(
        messages=turns, add_generation_prompt=True
    )
    assert rendered == (
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
