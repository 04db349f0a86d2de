"""Where things lie on the run's volume. Paths only; nothing is read or written here.

<volume>/<run>/data/            shards, held-out split, manifest
<volume>/<run>/tokenizer/       tokenizer.json, tokenizer_config.json
<volume>/<run>/checkpoints/     step-N/ with manifest.json written last; quarantine/
<volume>/<run>/checkpoints/skipped.json   data steps that are never trained
<volume>/<run>/export/step-N/   Hugging Face directory
<volume>/<run>/post/<name>/     Hugging Face directory of one post-training stage
<volume>/<run>/logs/            metrics, W&B files, wandb-id
<volume>/<run>/logs/stacks/     attempt-round-rank.txt: where the workers of a stalled round stood
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Layout:
    """The folders of one run below the volume's mount point."""

    volume: str
    run: str

    @property
    def root(self) -> PurePosixPath:
        return PurePosixPath(self.volume) / self.run

    @property
    def data(self) -> PurePosixPath:
        return self.root / "data"

    @property
    def tokenizer(self) -> PurePosixPath:
        return self.root / "tokenizer"

    @property
    def checkpoints(self) -> PurePosixPath:
        return self.root / "checkpoints"

    @property
    def quarantine(self) -> PurePosixPath:
        return self.checkpoints / "quarantine"

    @property
    def logs(self) -> PurePosixPath:
        return self.root / "logs"

    @property
    def wandb_id(self) -> PurePosixPath:
        return self.logs / "wandb-id"

    @property
    def stacks(self) -> PurePosixPath:
        return self.logs / "stacks"

    def checkpoint(self, step: int) -> PurePosixPath:
        return self.checkpoints / f"step-{step}"

    def export(self, step: int) -> PurePosixPath:
        return self.root / "export" / f"step-{step}"

    def post_training(self, name: str) -> PurePosixPath:
        return self.root / "post" / name
