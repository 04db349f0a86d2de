"""Step folders on disk. Each operation may be killed at any point and leaves a state that is known.

A folder's manifest decides what it is:

    writing files ──manifest──▶ verified ──mismatch──▶ quarantine/step-N-1
         │                         │ superseded
         └── no manifest: unfinished ◀── manifest deleted first, then the files

So a kill while saving or deleting leaves an unfinished folder, which the next start removes.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import artifacts
from ..contract import codec
from ..contract.config import CheckpointConfig
from ..contract.data_steps import SkippedData
from ..contract.layout import MANIFEST
from ..contract.manifests import CheckpointManifest, FileEntry
from .selection import Found, abandoned, superseded

REASON = "quarantined.txt"
SKIPPED = "skipped.json"

_STEP = re.compile(r"step-(\d+)")
_RANK = re.compile(r"__(\d+)_")  # DCP names a rank's files __<rank>_<number>.distcp

logger = logging.getLogger(__name__)


def step_folder(root: Path, step: int) -> Path:
    return root / f"step-{step}"


def steps(root: Path) -> tuple[int, ...]:
    """Every step that has a folder, oldest first."""
    names = os.listdir(root) if root.is_dir() else []
    matches = (_STEP.fullmatch(name) for name in names)
    return tuple(sorted(int(match[1]) for match in matches if match))


def found(root: Path, step: int) -> Found:
    try:
        text = (step_folder(root, step) / MANIFEST).read_bytes()
    except FileNotFoundError:
        return Found(step)
    try:
        manifest = codec.from_json(CheckpointManifest, text)
    except codec.DecodeError as error:
        return Found(step, damage=f"{MANIFEST} is not readable: {error}")
    if manifest.step != step:
        return Found(step, damage=f"{MANIFEST} is of step {manifest.step}")
    return Found(step, manifest)


def scan(root: Path) -> tuple[Found, ...]:
    """All step folders, newest first; the files are not looked at."""
    return tuple(found(root, step) for step in reversed(steps(root)))


def owned_entries(folder: Path, rank: int) -> tuple[FileEntry, ...]:
    """Sizes and checksums of the files that this rank wrote; what no rank owns is rank 0's."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return tuple(artifacts.file_entry(folder, path) for path in files if _owner(path) == rank)


def _owner(path: Path) -> int:
    match = _RANK.match(path.name)
    return int(match[1]) if match else 0


def write_manifest(root: Path, manifest: CheckpointManifest) -> None:
    """From here on the checkpoint counts as verified."""
    path = step_folder(root, manifest.step) / MANIFEST
    artifacts.write_atomically(path, codec.to_json(manifest))


def read_skipped(root: Path) -> SkippedData:
    """Raises codec.DecodeError."""
    try:
        return codec.from_json(SkippedData, (root / SKIPPED).read_bytes())
    except FileNotFoundError:
        return SkippedData()


def write_skipped(root: Path, skipped: SkippedData) -> None:
    root.mkdir(parents=True, exist_ok=True)
    artifacts.write_atomically(root / SKIPPED, codec.to_json(skipped))


def remove(root: Path, step: int) -> None:
    folder = step_folder(root, step)
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)


def remove_unfinished(root: Path, findings: Iterable[Found]) -> None:
    """Only while nobody saves: at the start of a worker."""
    for item in findings:
        if item.manifest is None and item.damage is None:
            logger.warning("removing step %d, whose save never finished", item.step)
            remove(root, item.step)


def apply_retention(root: Path, policy: CheckpointConfig) -> None:
    """Deletes superseded checkpoints, and older leftovers of saves that never finished."""
    findings = scan(root)
    verified = [item.step for item in findings if item.manifest]
    unfinished = [item.step for item in findings if not item.manifest and not item.damage]
    for step in (*superseded(verified, policy), *abandoned(unfinished, verified)):
        remove(root, step)


def quarantine(root: Path, step: int, reason: str) -> Path:
    """Moves a damaged checkpoint away and returns where it is now; the reason goes with it."""
    folder = step_folder(root, step)
    artifacts.write_atomically(folder / REASON, reason + "\n")
    target = next(path for path in _quarantine_names(root, step) if not path.exists())
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    logger.error("step %d cannot be gone on from (%s): moved to %s", step, reason, target)
    return target


def described(problems: list[str]) -> str | None:
    """The reason for a quarantine; None where nothing is wrong."""
    return "; ".join(problems[:3]) or None


def _quarantine_names(root: Path, step: int) -> Iterator[Path]:
    for number in itertools.count(1):
        yield root / "quarantine" / f"step-{step}-{number}"
