"""Which files make up a checkpoint or an artifact. Written last: its presence means whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from .data_steps import SkippedData


@dataclass(frozen=True)
class FileEntry:
    path: str  # relative to the manifest's folder
    bytes: int
    sha256: str


@dataclass(frozen=True)
class CheckpointManifest:
    """One verified checkpoint: `checkpoints/step-N/manifest.json`."""

    step: int
    tokens: int  # trained so far
    samples: int  # sequences consumed: with `skipped`, the data position
    world_size: int
    model_fingerprint: str
    tokenizer_fingerprint: str
    data_digest: str
    config_digest: str
    saved_at: float  # seconds since the epoch
    versions: dict[str, str]
    files: tuple[FileEntry, ...]
    skipped: SkippedData = field(default_factory=SkippedData)


@dataclass(frozen=True)
class ArtifactManifest:
    """A finished stage's output folder: data, export or post-training."""

    stage: str
    inputs_digest: str  # of the configuration and artifacts it was made from: equal means done
    tokenizer_fingerprint: str
    files: tuple[FileEntry, ...]
    step: int | None = None
    source_digests: tuple[str, ...] = ()
    mean_of: tuple[str, ...] = ()  # of an exported soup: run, step and share of each checkpoint
    metrics: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
