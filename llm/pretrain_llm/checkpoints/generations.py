"""Folders of checkpoints in memory, on the tmpfs of one pod. Standard library only.

<root>/<round>-<step>/<node rank>/   <local rank>.bin     a worker's tensors, flat
                                     <local rank>.json    what is where in it: written last
                                     manifest.json        of all of them, by the agent: whole now

Workers write their own shards, the agent seals them and keeps copies of another node's beside
them. Nothing is synced: what is in memory is gone with it. Each operation may be killed anywhere;
what has no manifest counts for nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .. import artifacts
from ..contract import codec
from ..contract.layout import MANIFEST
from ..contract.memory import Generation, Shards, parsed


def folder(root: Path, generation: Generation, rank: int) -> Path:
    return root / str(generation) / str(rank)


def tensors_path(shards: Path, local_rank: int) -> Path:
    return shards / f"{local_rank}.bin"


def header_path(shards: Path, local_rank: int) -> Path:
    return shards / f"{local_rank}.json"


def generations(root: Path) -> list[Generation]:
    """All that have a folder, oldest first."""
    found = (parsed(name) for name in _names(root))
    return sorted(generation for generation in found if generation)


def kept(interval: int) -> int:
    """How many generations of its own a node keeps: one that is safe, one on its way.

    Whether there is room for the next is asked one step ahead. With saves at every step that is
    right after the last one, which nobody can have a copy of: it needs a place of its own, or every
    second save would be left out.
    """
    return 3 if interval == 1 else 2


def is_full(root: Path, rank: int, interval: int) -> bool:
    """Whether a node has as many generations of its own as it keeps, whole or not."""
    own = [found for found in generations(root) if folder(root, found, rank).is_dir()]
    return len(own) >= kept(interval)


def unsealed(root: Path, rank: int, workers: int) -> Iterator[Generation]:
    """Generations of this node's that all its workers have written and nobody has sealed."""
    for generation in generations(root):
        shards = folder(root, generation, rank)
        names = _names(shards)
        headers = [f"{local_rank}.json" for local_rank in range(workers)]
        if MANIFEST not in names and set(headers) <= set(names):
            yield generation


def seal(root: Path, generation: Generation, rank: int, nodes: int) -> Shards:
    """Hashes a node's shards and writes their manifest."""
    place = folder(root, generation, rank)
    shards = Shards(generation, rank, nodes, artifacts.entries(place))
    write(place / MANIFEST, codec.to_json(shards))
    return shards


def read_shards(root: Path, generation: Generation, rank: int) -> Shards | None:
    """The manifest of a node's shards; None where they are not whole."""
    try:
        text = (folder(root, generation, rank) / MANIFEST).read_bytes()
        return codec.from_json(Shards, text)
    except (FileNotFoundError, codec.DecodeError):
        return None


def keep(root: Path, oldest: Generation) -> None:
    """Removes what is older."""
    for generation in generations(root):
        if generation < oldest:
            remove(root, generation)


def keep_only(root: Path, kept: Generation | None) -> None:
    """Removes everything else: other generations, and what nobody sealed of this one."""
    for generation in generations(root):
        if generation != kept:
            remove(root, generation)
            continue
        for name in _names(root / str(generation)):
            if not (root / str(generation) / name / MANIFEST).exists():
                shutil.rmtree(root / str(generation) / name, ignore_errors=True)


def remove(root: Path, generation: Generation) -> None:
    """The manifests first: what is half removed is not whole."""
    place = root / str(generation)
    for manifest in place.glob(f"*/{MANIFEST}"):
        manifest.unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)  # a copy may still be arriving: it is removed later


def write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}")
    part.write_text(text)
    os.replace(part, path)


def _names(place: Path) -> list[str]:
    return os.listdir(place) if place.is_dir() else []
