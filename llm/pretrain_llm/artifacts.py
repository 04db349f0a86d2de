"""Folders that a stage writes once and others read: hash the files, write the manifest, verify it.

Standard library only, so that the serving image needs no training package to check what it serves.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .contract import codec, config
from .contract.layout import MANIFEST
from .contract.manifests import ArtifactManifest, FileEntry
from .contract.results import StageResult
from .errors import InputError

# A finished stage is in the status of its run, which does not look at the folder again.
REMAKE = (
    "Restore the folder from a copy. Without one, delete the folder and the run, and apply the run"
    " again: what is whole on the storage is kept, and the folder is made anew."
)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_entry(folder: Path, path: Path) -> FileEntry:
    return FileEntry(str(path.relative_to(folder)), path.stat().st_size, sha256_of(path))


def entries(folder: Path) -> tuple[FileEntry, ...]:
    """Every file below the folder but its manifest, in order of path."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return tuple(file_entry(folder, path) for path in sorted(files))


def mismatches(folder: Path, files: Iterable[FileEntry]) -> list[str]:
    """What is wrong with the files, in words; empty where all are as their entries say."""
    problems = []
    for entry in files:
        path = folder / entry.path
        if not path.is_file():
            problems.append(f"{entry.path} is missing")
        elif (size := path.stat().st_size) != entry.bytes:
            problems.append(f"{entry.path} has {size} bytes instead of {entry.bytes}")
        elif sha256_of(path) != entry.sha256:
            problems.append(f"{entry.path} has another checksum")
    return problems


def write_atomically(path: Path, text: str) -> None:
    """The file has either its old content or the new one, also after a power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(partial, 0o644)
    os.replace(partial, path)


def fresh_folder(folder: Path) -> Path:
    """An empty folder beside the one that is to be made; what a killed stage left there goes."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def publish(partial: Path, folder: Path) -> None:
    """Puts a whole folder in its place. An older one loses its manifest first: it is unfinished.

    Other pods may run as other users, and some libraries write files that only the owner can read.
    """
    for path in partial.rglob("*"):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
    (folder / MANIFEST).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def write_manifest(folder: Path, manifest: ArtifactManifest) -> StageResult:
    """Ends a stage: from here on the folder counts as finished."""
    write_atomically(folder / MANIFEST, codec.to_json(manifest))
    return _result(folder, manifest)


def read_manifest(folder: Path) -> ArtifactManifest | None:
    """None where the stage has not finished. Raises codec.DecodeError."""
    path = folder / MANIFEST
    return codec.from_json(ArtifactManifest, path.read_bytes()) if path.is_file() else None


def finished(folder: Path, inputs_digest: str) -> StageResult | None:
    """The result of an earlier, whole execution of the same stage on the same inputs."""
    try:
        manifest = read_manifest(folder)
    except codec.DecodeError:
        return None
    if manifest is None or manifest.inputs_digest != inputs_digest:
        return None
    return None if mismatches(folder, manifest.files) else _result(folder, manifest)


def verified_manifest(folder: Path, *, field: str) -> ArtifactManifest:
    """The manifest of an artifact that is about to be used. Raises InputError."""
    try:
        manifest = read_manifest(folder)
        problems = mismatches(folder, manifest.files) if manifest else []
    except codec.DecodeError as error:
        problems = [f"{MANIFEST} is damaged: {error}"]
    if problems:
        raise InputError(
            "; ".join(problems[:3]),
            field=field,
            value=folder,
            remedy=REMAKE,
        )
    if manifest is None:
        raise InputError(
            "no finished artifact there",
            field=field,
            value=folder,
            remedy="Let the stage that makes it finish, or name another one.",
        )
    return manifest


def artifact_digest(manifest: ArtifactManifest) -> str:
    """One digest for all files of an artifact."""
    return config.digest({entry.path: entry.sha256 for entry in manifest.files})


def _result(folder: Path, manifest: ArtifactManifest) -> StageResult:
    return StageResult(
        stage=manifest.stage,
        path=str(folder),
        digest=artifact_digest(manifest),
        step=manifest.step,
        source_digests=manifest.source_digests,
        mean_of=manifest.mean_of,
        metrics=manifest.metrics,
        seconds=manifest.seconds,
    )
