"""The documents of a run's sources, through datatrove's readers. Filters and writes nothing.

A path is a file, a folder or a URL that fsspec opens; the order of files and documents in it is
fixed, whatever number of tasks reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow
from datatrove.data import Document
from datatrove.io import DataFolder
from datatrove.pipeline.readers import JsonlReader, ParquetReader
from datatrove.pipeline.readers.base import BaseDiskReader
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from ..contract.config import RunConfig, SourceConfig
from ..errors import InputError
from .conversations import BadRowError, Placed, conversations

# In a folder of many things, what counts as a source's file; compressed ones have a longer name.
_MARKS = {
    "jsonl": (".jsonl",),
    "parquet": (".parquet",),
    "text": ("",),
    "chat": (".jsonl", ".parquet"),
}


SAMPLE_FILES = 64  # open at a time when reading files in turn


class UnreadableFileError(ValueError):
    """A file is not of its source's format. Its message is all of it, so it crosses processes."""


class TextReader(BaseDiskReader):
    """One document a file."""

    name = "📄 Text"

    def read_file(self, filepath: str) -> Iterator[Document]:
        try:
            with self.data_folder.open(filepath, "r", encoding="utf-8") as file:
                row = {self.text_key: file.read(), self.id_key: filepath}
        except UnicodeDecodeError as error:
            raise UnreadableFileError(f"{filepath} is not UTF-8 text: {error.reason}") from error
        if document := self.get_document_from_dict(row, filepath, 0):
            yield document


_READERS = {"jsonl": JsonlReader, "parquet": ParquetReader, "text": TextReader}


@dataclass(frozen=True)
class SourceFile:
    source: SourceConfig
    folder: DataFolder
    name: str  # relative to the folder
    bytes: int
    number: int  # of the source, in the spec's order

    @property
    def is_chat(self) -> bool:
        return self.source.is_chat

    def conversations(self) -> Iterator[Placed]:
        """Of a file of chats, none left out. Raises BadRowError, UnreadableFileError."""
        try:
            yield from conversations(self.folder, self.name)
        except (pyarrow.ArrowInvalid, UnicodeDecodeError) as error:
            raise UnreadableFileError(f"{self.name} has no rows of chats: {error}") from error

    def documents(self) -> Iterator[Document]:
        """Of a file of text. Raises UnreadableFileError. Rows without text are left out, with a
        warning in the log."""
        reader = _READERS[self.source.format](self.folder, text_key=self.source.text_field)
        try:
            for document in reader.read_file(self.name):
                if not isinstance(document.text, str):
                    kind = type(document.text).__name__
                    raise UnreadableFileError(
                        f"{self.source.text_field} in {self.name} is of type {kind}, not text"
                    )
                yield document
        except (pyarrow.ArrowInvalid, AttributeError, UnicodeDecodeError) as error:
            raise UnreadableFileError(
                f"{self.name} is not {self.source.format}: {error}"
            ) from error


def source_files(run: RunConfig) -> list[SourceFile]:
    """Every file of every source, each source's in order of path. Raises InputError."""
    return [
        file
        for number, source in enumerate(run.data.sources)
        for file in _files(source, run.located(source.path), number)
    ]


def _files(source: SourceConfig, location: str, number: int) -> list[SourceFile]:
    field = f"spec.data.sources[{number}]"
    if source.format not in _MARKS:
        raise InputError(
            "no reader for this format",
            field=f"{field}.format",
            value=source.format,
            remedy=f"Use one of {', '.join(_MARKS)}.",
        )
    folder, names = _listing(source, location, f"{field}.path")
    files = [SourceFile(source, folder, name, folder.size(name) or 0, number) for name in names]
    _check_documents(files, source, field)
    return files


def _listing(source: SourceConfig, location: str, field: str) -> tuple[DataFolder, list[str]]:
    system, path = _file_system(location, field)
    if system.isfile(path):
        parent, _, name = path.rpartition("/")
        return DataFolder(parent or "/", fs=system), [name]
    if not _is_folder(system, path, location, field):
        raise InputError(
            "nothing there",
            field=field,
            value=location,
            remedy="Name a file or folder that the pod can read; mount its volume if it has one.",
        )
    folder = DataFolder(path, fs=system)
    marks = _MARKS[source.format]
    return folder, [name for name in folder.list_files() if _is_source_file(name, marks)]


def _file_system(location: str, field: str) -> tuple[AbstractFileSystem, str]:
    """Who reads a URL, and the path there. Raises InputError where the image has nobody."""
    try:
        return url_to_fs(location)
    except (ImportError, ValueError) as error:  # no driver, no such protocol
        raise InputError(
            f"cannot be read in this image: {error}",
            field=field,
            value=location,
            remedy="Name an image that has this protocol's fsspec driver in "
            "spec.data.template.image, or put the text where s3:// or a volume reaches it.",
        ) from error


def _is_folder(system: AbstractFileSystem, path: str, location: str, field: str) -> bool:
    try:
        return bool(system.isdir(path))
    except Exception as error:
        if not _is_refusal(error):
            raise
        raise InputError(
            f"may not be read: {error}",
            field=field,
            value=location,
            remedy="Give the pod credentials that may read it, in spec.data.template.env.",
        ) from error


def _is_refusal(error: Exception) -> bool:
    """Whether a retry would end the same; a network's failure is none. Of botocore by its name."""
    return isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError"


def _is_source_file(name: str, marks: tuple[str, ...]) -> bool:
    base = name.rpartition("/")[2]
    return any(mark in base for mark in marks) and not base.startswith(".")


def _check_documents(files: list[SourceFile], source: SourceConfig, field: str) -> None:
    """Raises InputError unless there is one document with text, or one chat; reads no further."""
    try:
        first = next((found for file in files for found in _found(file)), None)
    except BadRowError as error:
        raise error.as_input_error(f"{field}.path") from error
    except UnreadableFileError as error:
        raise InputError(
            str(error),
            field=f"{field}.format",
            value=source.format,
            remedy="State the format that the files have.",
        ) from error
    if first:
        return
    if any(file.bytes for file in files) and source.format in ("jsonl", "parquet"):
        raise InputError(
            f"no row in {source.path} has text in this field, or the files are not {source.format}",
            field=f"{field}.textField",
            value=source.text_field,
            remedy="Name the field that holds the text, and the files' format.",
        )
    raise InputError(
        f"no {source.format} document there",
        field=f"{field}.path",
        value=source.path,
        remedy="Put text there, or name another path.",
    )


def _found(file: SourceFile) -> Iterator[Document | Placed]:
    return file.conversations() if file.is_chat else file.documents()


def text_hash(text: str) -> int:
    """64 bits that decide a document's split: equal texts always land on the same side."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def in_turn(files: list[SourceFile]) -> Iterator[str]:
    """Texts for a sample: a document from each of some evenly spaced files in turn. Chats are left
    out: they are no text before there is a tokenizer with a template."""
    texts = [file for file in files if not file.is_chat]
    readers = [file.documents() for file in texts[:: -(-len(texts) // SAMPLE_FILES) or 1]]
    while readers:
        for reader in tuple(readers):
            if document := next(reader, None):
                yield document.text
            else:
                readers.remove(reader)
