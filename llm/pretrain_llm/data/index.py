"""What the token shards of a run are: `index.json` beside them. Reads and checks; packs nothing.

A shard is a raw little-endian array of token ids without a header. Each document ends with EOS.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..artifacts import REMAKE
from ..contract import codec
from ..errors import InputError

INDEX = "index.json"
CHAT = "chat.jsonl"  # a small chat set made from the training text
MAX_UINT16_VOCAB = 1 << 16


@dataclass(frozen=True)
class Shard:
    path: str  # relative to the index's folder
    tokens: int
    source: str = ""  # name of the source, in the training split


@dataclass(frozen=True)
class ShardIndex:
    """The shards of both splits, in reading order."""

    token_bytes: int  # 2 (uint16) or 4 (uint32), little-endian
    vocab_size: int
    eos_id: int
    tokenizer_fingerprint: str
    train: tuple[Shard, ...]
    heldout: tuple[Shard, ...]
    heldout_bytes: int  # of the held-out text as UTF-8, EOS not counted: for bits per byte

    @property
    def train_tokens(self) -> int:
        return sum(shard.tokens for shard in self.train)

    @property
    def heldout_tokens(self) -> int:
        """With one EOS a document."""
        return sum(shard.tokens for shard in self.heldout)


def token_bytes(vocab_size: int) -> int:
    """Size of one stored token id: the smallest unsigned type that holds every id."""
    return 2 if vocab_size <= MAX_UINT16_VOCAB else 4


def open_shards(folder: Path, tokenizer_fingerprint: str) -> ShardIndex:
    """The index of shards that are whole and made with this tokenizer. Raises InputError."""
    index = _read(folder)
    if index.tokenizer_fingerprint != tokenizer_fingerprint:
        raise InputError(
            f"the shards in {folder} were made with another tokenizer than "
            f"{tokenizer_fingerprint[:12]}",
            field="spec.tokenizer",
            value=index.tokenizer_fingerprint[:12],
            remedy="Name the tokenizer they were made with, or delete the folder; "
            "the Data stage then makes it again.",
        )
    _check_sizes(folder, index)
    return index


def _read(folder: Path) -> ShardIndex:
    path = folder / INDEX
    try:
        return codec.from_json(ShardIndex, path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            "no token shards there",
            field="spec.data",
            value=path,
            remedy="Let the Data stage finish first.",
        ) from error
    except codec.DecodeError as error:
        raise InputError(
            f"not an index of shards: {error}", field="spec.data", value=path, remedy=REMAKE
        ) from error


def _check_sizes(folder: Path, index: ShardIndex) -> None:
    for shard in (*index.train, *index.heldout):
        path = folder / shard.path
        found = path.stat().st_size if path.is_file() else 0
        if found != (expected := shard.tokens * index.token_bytes):
            raise InputError(
                f"the shard has {found} bytes instead of {expected}",
                field="spec.data",
                value=path,
                remedy=REMAKE,
            )
