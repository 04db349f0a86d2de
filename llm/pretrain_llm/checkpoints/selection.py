"""Which checkpoint may be loaded and which folders may go: pure, decided from manifests alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ..contract.config import CheckpointConfig
from ..contract.data_steps import SkippedData
from ..contract.manifests import CheckpointManifest, FileEntry
from ..errors import InputError

OTHER_HISTORY = "it was trained on batches that are skipped since the loss went wrong"
MIN_KEPT = 1  # never delete the only verified checkpoint


@dataclass(frozen=True)
class Identity:
    """What a run's checkpoints have in common, and a loaded one must share."""

    model_fingerprint: str
    tokenizer_fingerprint: str
    data_digest: str
    config_digest: str  # told, not compared: a longer run or another mesh may go on from it
    world_size: int


@dataclass(frozen=True)
class Found:
    """One step folder. No manifest and no damage: the save never finished."""

    step: int
    manifest: CheckpointManifest | None = None
    damage: str | None = None  # why the manifest itself cannot be used


def check_origin(manifest: CheckpointManifest, identity: Identity, folder: str) -> None:
    """Raises InputError where the checkpoint is of another model, tokenizer or data."""
    comparisons = (
        ("model", "spec.model", manifest.model_fingerprint, identity.model_fingerprint),
        (
            "tokenizer",
            "spec.tokenizer",
            manifest.tokenizer_fingerprint,
            identity.tokenizer_fingerprint,
        ),
        ("training data", "spec.data", manifest.data_digest, identity.data_digest),
    )
    for name, field, saved, ours in comparisons:
        if saved != ours:
            raise InputError(
                f"{folder} holds checkpoints of another {name}: {saved[:12]}, not {ours[:12]}",
                field=field,
                value=ours[:12],
                remedy="Start a run under another name, "
                f"or make this one anew with the {name} that they were trained with.",
            )


def newest_whole(
    findings: Iterable[Found],
    identity: Identity,
    root: str,
    *,
    damage: Callable[[CheckpointManifest], str | None],
    set_aside: Callable[[int, str], None],
) -> CheckpointManifest | None:
    """The newest of this run's checkpoints without damage; None where there is none.

    `findings`: newest first; older ones than the chosen one are not looked at. `damage` says what
    is wrong with the files, `set_aside` gets each damaged step and why. Raises InputError.
    """
    for item in findings:
        if item.manifest is not None:
            check_origin(item.manifest, identity, root)
            if (reason := damage(item.manifest)) is None:
                return item.manifest
            set_aside(item.step, reason)
        elif item.damage is not None:
            set_aside(item.step, item.damage)
    return None


def other_history(manifest: CheckpointManifest, skipped: SkippedData) -> str | None:
    """Why training cannot go on from a checkpoint: it was trained on data that is skipped since."""
    if manifest.skipped.agrees(skipped, manifest.step):
        return None
    return OTHER_HISTORY


def superseded(verified: Collection[int], policy: CheckpointConfig) -> tuple[int, ...]:
    """Verified steps that are neither among the newest nor kept for good, oldest first."""
    older = sorted(verified)[: -max(MIN_KEPT, policy.keep_latest)]
    return tuple(step for step in older if not policy.keeps(step))


def abandoned(unfinished: Iterable[int], verified: Collection[int]) -> tuple[int, ...]:
    """Unfinished steps older than a verified one: nobody writes them any more.

    Saves finish in order, so only a newer one can still be under way.
    """
    newest = max(verified, default=0)
    return tuple(sorted(step for step in unfinished if step < newest))


def share(files: Iterable[FileEntry], rank: int, ranks: int) -> tuple[FileEntry, ...]:
    """The files that one rank hashes: largest first, each to the rank with the fewest bytes."""
    loads = [0] * ranks
    mine = []
    for entry in sorted(files, key=lambda entry: (-entry.bytes, entry.path)):
        owner = loads.index(min(loads))
        loads[owner] += entry.bytes or 1
        if owner == rank:
            mine.append(entry)
    return tuple(mine)
