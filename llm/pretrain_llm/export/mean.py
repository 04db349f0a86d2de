"""The weights of a checkpoint, or the weighted mean of several, in float32.

Beside the mean there is only a part of one further checkpoint in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from ..errors import InputError
from .soup import FIELD

MAX_READ_BYTES = 1 << 30  # of one checkpoint at a time, or its largest tensor

Weights = dict[str, torch.Tensor]
Shares = Mapping[Path, float]  # of step folders; they sum to 1


def load(weights: Weights, shares: Shares, limit_bytes: int = MAX_READ_BYTES) -> None:
    """Fills the tensors with the mean, summed in the order of the folders. Raises InputError."""
    if len(shares) > 1:
        check_shapes(weights, shares)
    first, *others = shares
    dcp.load(weights, checkpoint_id=first, no_dist=True)
    for tensor in weights.values():
        tensor.mul_(shares[first])
    for folder in others:
        for names in parts(weights, limit_bytes):
            theirs = {name: torch.empty_like(weights[name]) for name in names}
            dcp.load(theirs, checkpoint_id=folder, no_dist=True)
            for name, tensor in theirs.items():
                weights[name].add_(tensor, alpha=shares[folder])


def check_shapes(weights: Weights, folders: Iterable[Path]) -> None:
    """Raises InputError unless every checkpoint has these tensors. Reads none."""
    for folder in folders:
        entries = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
        for name, tensor in weights.items():
            entry = entries.get(name)
            size = tuple(entry.size) if isinstance(entry, TensorStorageMetadata) else None
            if size != tuple(tensor.shape):
                raise InputError(
                    f"its {name} is {size}, not {tuple(tensor.shape)} as in this run",
                    field=FIELD,
                    value=folder,
                    remedy="Name checkpoints of one architecture.",
                )


def parts(weights: Weights, limit_bytes: int) -> Iterator[list[str]]:
    """Names in their order, so many at a time as stay within the limit, and one at least."""
    names: list[str] = []
    size = 0
    for name, tensor in weights.items():
        if names and size + tensor.nbytes > limit_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.nbytes
    if names:
        yield names
