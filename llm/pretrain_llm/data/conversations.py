"""Sources of chats: their rows, and the text that the chat template of the run's tokenizer makes of
each. transformers renders it, so it is the text that fine-tuning trains and that vLLM serves.

    {"messages": [...]} --check--> conversation --template--> text, tokenised as one document

In that text the template's special tokens are tokens, as they are there; in other documents they
are plain text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from datatrove.io import DataFolder
from pyarrow.parquet import ParquetFile

from ..conversation import Conversation, mistake, turns
from ..errors import InputError

_BATCH_ROWS = 1024

Placed = tuple[str, Conversation]  # with the file and the number of its row


class BadRowError(ValueError):
    """A row that is no chat, or that the template refuses. Its arguments are all of it, so it
    crosses processes."""

    def __init__(self, problem: str, place: str) -> None:
        super().__init__(problem, place)
        self.problem, self.place = problem, place

    def as_input_error(self, field: str) -> InputError:
        remedy = "Mend or remove this row."
        return InputError(self.problem, field=field, value=self.place, remedy=remedy)


def conversations(folder: DataFolder, name: str) -> Iterator[Placed]:
    """Of one file, none left out. Raises BadRowError, and what the reader of its format raises."""
    read = _parquet_rows if ".parquet" in name.rpartition("/")[2] else _json_rows
    for place, row in read(folder, name):
        if problem := mistake(row):
            raise BadRowError(problem, place)
        yield place, turns(row)


def _json_rows(folder: DataFolder, name: str) -> Iterator[tuple[str, Any]]:
    with folder.open(name, "rt", encoding="utf-8", compression="infer") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{folder.path}/{name}:{number}"
                yield place, _decoded(line, place)


def _decoded(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise BadRowError(f"not JSON: {error}", place) from error


def _parquet_rows(folder: DataFolder, name: str) -> Iterator[tuple[str, Any]]:
    with folder.open(name, "rb") as file:
        batches = ParquetFile(file).iter_batches(_BATCH_ROWS, columns=["messages"])
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            yield f"{folder.path}/{name}:{number}", row


@dataclass(frozen=True)
class ChatTemplate:
    """Of a tokenizer folder, which is opened where it is used: this crosses processes."""

    folder: Path

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer  # seconds, which runs without chats need not wait

        return AutoTokenizer.from_pretrained(str(self.folder))

    def check_ends_no_document(self, eos: str) -> None:
        """Raises InputError where a chat would fall apart into a document a turn."""
        exchange = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        if eos in self.text(exchange * 2).rstrip().removesuffix(eos):
            raise InputError(
                "the chat template writes the end of text after a turn, which ends a document here",
                field="spec.tokenizer.path",
                value=eos,
                remedy="Give the template or eos_token a token of its own: <|im_end|> after turns, "
                "<|endoftext|> after documents.",
            )

    def text(self, conversation: Conversation) -> str:
        """Raises jinja2.TemplateError where the template refuses it."""
        rendered: str = self._tokenizer.apply_chat_template(conversation, tokenize=False)
        return rendered

    def texts(self, placed: Iterator[Placed]) -> Iterator[tuple[str, str]]:
        """Each with its place. Raises BadRowError, and what `placed` does."""
        for place, conversation in placed:
            try:
                yield place, self.text(conversation)
            except jinja2.TemplateError as error:
                raise BadRowError(f"the chat template refuses it: {error}", place) from error
