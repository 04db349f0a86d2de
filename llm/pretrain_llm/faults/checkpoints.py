"""Damage to the newest checkpoint that has a manifest, as storage and people do it."""

from __future__ import annotations

import os
from pathlib import Path

from ..checkpoints import folders
from ..contract.layout import MANIFEST
from ..contract.manifests import CheckpointManifest


class NothingToDamageError(Exception):
    """There is no checkpoint with a manifest."""


def damage(kind: str, root: Path) -> str:
    """What was done, in words. Raises NothingToDamageError, OSError."""
    manifest = next((found.manifest for found in folders.scan(root) if found.manifest), None)
    if manifest is None:
        raise NothingToDamageError(f"no checkpoint in {root} has a manifest yet")
    folder = folders.step_folder(root, manifest.step)
    if kind == "checkpoint-manifest-missing":
        (folder / MANIFEST).unlink()
        return f"removed {folder / MANIFEST}"
    path = folder / _largest(manifest)
    if kind == "checkpoint-truncated":
        os.truncate(path, path.stat().st_size // 2)
        return f"cut {path} in half"
    offset = _flip_bit(path)
    return f"flipped a bit of {path} at byte {offset}"


def _largest(manifest: CheckpointManifest) -> str:
    return max(manifest.files, key=lambda entry: entry.bytes).path


def _flip_bit(path: Path) -> int:
    offset = path.stat().st_size // 2
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    return offset
