"""All ranks verify the checkpoints together and agree on the one to load.

Rank 0 alone reads the folder's listing and changes it; every rank hashes its share of the files.
Verification costs each rank the reading of one share, about what it is going to load anyway.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from .. import artifacts
from ..contract import codec, environment
from ..contract.data_steps import SkippedData
from ..contract.manifests import CheckpointManifest
from . import folders
from .selection import Found, Identity, newest_whole, other_history, share

OnQuarantine = Callable[[int, str, Path], None]  # step, reason, where it is now

logger = logging.getLogger(__name__)


def agreed_skips(root: Path, group: dist.ProcessGroup) -> SkippedData:
    """What is never trained, on every rank: what the volume has, or the coordinator newly decided.

    On the volume before anything follows from it, so that it outlives every process.
    """
    agreed: list[SkippedData] = [SkippedData()]
    if dist.get_rank(group) == 0:
        known = folders.read_skipped(root)
        told = codec.from_json(SkippedData, os.environ.get(environment.SKIPPED, "{}"))
        agreed = [known.newer(told)]
        if agreed[0] != known:
            folders.write_skipped(root, agreed[0])
    dist.broadcast_object_list(agreed, src=0, group=group)
    return agreed[0]


def newest_verified(
    root: Path,
    identity: Identity,
    skipped: SkippedData,
    group: dist.ProcessGroup,
    on_quarantine: OnQuarantine,
) -> CheckpointManifest | None:
    """The checkpoint to go on from; None: start from scratch. Every rank calls it.

    Damaged ones, and those that trained on data that is `skipped` since, are moved away, newest
    first, until one verifies; older ones are not looked at.
    Raises InputError on every rank where the checkpoints are not this run's.
    """

    def set_aside(step: int, reason: str) -> None:
        if dist.get_rank(group) == 0:
            on_quarantine(step, reason, folders.quarantine(root, step, reason))

    return newest_whole(
        _scan(root, group),
        identity,
        str(root),
        damage=lambda manifest: other_history(manifest, skipped) or _damage(root, manifest, group),
        set_aside=set_aside,
    )


def newest_listed(root: Path, group: dist.ProcessGroup) -> int:
    """The step of the newest checkpoint that has a manifest, not verified; 0: none."""
    return max((found.step for found in _scan(root, group) if found.manifest), default=0)


def _scan(root: Path, group: dist.ProcessGroup) -> tuple[Found, ...]:
    """Rank 0's view for everybody: shared file systems do not show all ranks the same at once."""
    findings: list[tuple[Found, ...] | None] = [None]
    if dist.get_rank(group) == 0:
        seen = folders.scan(root)
        folders.remove_unfinished(root, seen)
        findings = [tuple(item for item in seen if item.manifest or item.damage)]
    dist.broadcast_object_list(findings, src=0, group=group)
    assert findings[0] is not None
    return findings[0]


def _damage(root: Path, manifest: CheckpointManifest, group: dist.ProcessGroup) -> str | None:
    """What any rank found wrong with the files, in words."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    folder = folders.step_folder(root, manifest.step)
    mine = artifacts.mismatches(folder, share(manifest.files, rank, ranks))
    everybodys: list[list[str]] = [[] for _ in range(ranks)]
    dist.all_gather_object(everybodys, mine, group=group)
    return folders.described([problem for problems in everybodys for problem in problems])
