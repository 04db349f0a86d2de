"""Text to token ids: a datatrove pipeline over all files, a task for every few files, and another
over those of chats.

What it writes depends on the files alone, not on the number of CPUs: for each task the token ids of
its documents one after another, where each document ends, and a ledger of hash, size and source.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.tokens import DocumentTokenizer
from tokenizers import Tokenizer

from ..tokenizer import TOKENIZER
from .conversations import ChatTemplate
from .sources import SourceFile, text_hash

MAX_TASKS = 64  # a constant, so that the order of documents does not hang on the machine
BATCH_DOCUMENTS = 256  # tokenised at once; bounds the memory a task takes

Read = Callable[[SourceFile], Iterator[Document]]
LEDGER = np.dtype([("hash", "<u8"), ("bytes", "<u8"), ("source", "<u8")])  # one entry a document


class PlainTextTokenizer(DocumentTokenizer):
    """Reads special tokens in a document as text: only the stage ends a document."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        tokenizer: Tokenizer = DocumentTokenizer.tokenizer.func(self)
        tokenizer.encode_special_tokens = True
        return tokenizer


@dataclass(frozen=True)
class TokenisedTask:
    """The output of one task; all arrays have an entry a document but `tokens`."""

    tokens: npt.NDArray[np.unsignedinteger]  # memory-mapped
    ends: npt.NDArray[np.uint64]  # exclusive, in tokens, EOS included
    ledger: npt.NDArray[np.void]  # of dtype LEDGER


def tokenise(
    files: list[SourceFile], tokenizer: Path, eos: str, folder: Path, *, token_bytes: int
) -> list[TokenisedTask]:
    """Those of text, then those of chats. Raises UnreadableFileError, BadRowError, InputError."""
    texts = [file for file in files if not file.is_chat]
    chats = [file for file in files if file.is_chat]
    template, options = ChatTemplate(tokenizer), _options(tokenizer, eos)
    if chats:
        template.check_ends_no_document(eos)
    rendered = partial(_chats, template=template)
    return [
        *_tokenised(texts, folder / "text", _texts, PlainTextTokenizer, options, token_bytes),
        *_tokenised(chats, folder / "chat", rendered, DocumentTokenizer, options, token_bytes),
    ]


def _options(tokenizer: Path, eos: str) -> dict[str, Any]:
    return {
        "tokenizer_name_or_path": str(tokenizer / TOKENIZER),
        "eos_token": eos,
        "batch_size": BATCH_DOCUMENTS,
        "shuffle_documents": False,
        "save_final_metadata": False,
    }


def _tokenised(
    files: list[SourceFile],
    folder: Path,
    read: Read,
    kind: type[DocumentTokenizer],
    options: dict[str, Any],
    token_bytes: int,
) -> list[TokenisedTask]:
    if not files:
        return []
    folder.mkdir()
    tasks = min(len(files), MAX_TASKS)
    workers = min(tasks, cpus())
    os.environ["RAYON_NUM_THREADS"] = str(max(1, cpus() // workers))
    documents = partial(_documents, files=files, folder=folder, read=read)
    steps = [documents, kind(str(folder), **options)]
    logs = str(folder / "logs")
    LocalPipelineExecutor(steps, tasks=tasks, workers=workers, logging_dir=logs).run()
    return [_task(folder, rank, token_bytes) for rank in range(tasks)]


def cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs this container may use: its cgroup's quota, or those the process may run on."""
    usable = len(os.sched_getaffinity(0))
    limit, period = quota.read_text().split() if quota.is_file() else ("max", "1")
    return usable if limit == "max" else max(1, min(usable, int(limit) // int(period)))


def _documents(
    _data: object,
    rank: int,
    world_size: int,
    *,
    files: list[SourceFile],
    folder: Path,
    read: Read,
) -> Iterator[Document]:
    """The documents of one task, each entered into the task's ledger."""
    with (folder / f"{rank:05d}.ledger").open("wb") as ledger:
        for file in files[rank::world_size]:
            for document in read(file):
                entry = (text_hash(document.text), len(document.text.encode()), file.number)
                ledger.write(np.array(entry, LEDGER).tobytes())
                yield document


def _texts(file: SourceFile) -> Iterator[Document]:
    return file.documents()


def _chats(file: SourceFile, *, template: ChatTemplate) -> Iterator[Document]:
    for place, text in template.texts(file.conversations()):
        yield Document(text=text, id=place)


def _task(folder: Path, rank: int, token_bytes: int) -> TokenisedTask:
    path = folder / f"{rank:05d}_unshuffled.ds"
    ends = np.fromfile(path.with_name(path.name + ".index"), "<u8")
    ledger = np.fromfile(folder / f"{rank:05d}.ledger", LEDGER)
    assert len(ends) == len(ledger), "datatrove left out documents"
    dtype = np.dtype(f"<u{token_bytes}")
    tokens = np.memmap(path, dtype, mode="r") if len(ends) else np.zeros(0, dtype)
    assert len(tokens) == (ends[-1] if len(ends) else 0), f"{path} is not whole"
    return TokenisedTask(tokens, ends, ledger)
