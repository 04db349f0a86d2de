"""Folds what the coordinator says of steps and checkpoints into the status. Pure.

Figures alone are not worth a write each second: `throttled` keeps the old ones for a while.
"""

from __future__ import annotations

import math

from pretrain_llm.contract.intervals import MAX_STALL_SHARE, Cadence
from pretrain_llm.contract.reports import QuarantinedReport
from pretrain_llm.contract.status import Progress, StatusDocument, Straggler

from .api.status import (
    BlockingStatus,
    CadenceStatus,
    Checkpoints,
    CheckpointStatus,
    MemoryCheckpointStatus,
    QuarantineStatus,
    RunStatus,
    SkippedData,
    StragglerStatus,
    TimeAccount,
    TrainingStatus,
)
from .case import Case
from .times import epoch_seconds, timestamp

_KEPT_QUARANTINED = 10
_MAX_PROBLEM = 500  # characters
_UNLIKE = 1e300  # for a difference that is not finite, which JSON cannot say


def with_progress(case: Case, status: RunStatus) -> RunStatus:
    document = case.document(status)
    if document is None:
        return status
    return status.model_copy(
        update={
            "training": _training(status.training, document),
            "checkpoints": _checkpoints(status.checkpoints, document),
        }
    )


def throttled(old: RunStatus, new: RunStatus, now: float, interval_seconds: float) -> RunStatus:
    """`new` if more than figures changed, or `interval_seconds` have passed; else `old`."""
    if old == new or _without_figures(old) == _without_figures(new):
        written = old.training.updated_at if old.training else None
        if written is not None and now - epoch_seconds(written) < interval_seconds:
            return old
        if not is_behind(old, new):
            return old
    if new.training is None:
        return new
    stamped = new.training.model_copy(update={"updated_at": timestamp(now)})
    return new.model_copy(update={"training": stamped})


def _training(old: TrainingStatus | None, document: StatusDocument) -> TrainingStatus | None:
    """Counts never fall: a coordinator that lost all agents has forgotten what it counted."""
    progress = document.progress
    if progress is None:
        return old
    known = old or TrainingStatus()
    in_round = sum(agent.rank is not None for agent in document.agents)
    return known.model_copy(
        update={
            **_figures_of(progress),
            "initial_loss": _rounded(progress.initial_loss, 4)
            if known.initial_loss is None
            else known.initial_loss,
            "nodes": in_round,
            "wanted_nodes": document.wanted_nodes,
            "stragglers": tuple(_straggler(slow) for slow in document.stragglers),
            "skipped_data": _skipped(known, document),
            "replayed_steps": max(known.replayed_steps, document.replay.steps),
            "replayed_max_loss_difference": max(
                known.replayed_max_loss_difference,
                _bounded(document.replay.max_loss_difference),
            ),
        }
    )


def _skipped(known: TrainingStatus, document: StatusDocument) -> tuple[SkippedData, ...]:
    told = document.skipped.ranges
    if len(told) <= len(known.skipped_data):
        return known.skipped_data
    return tuple(SkippedData(first=item.first, end=item.end) for item in told)


def _straggler(slow: Straggler) -> StragglerStatus:
    return StragglerStatus(
        rank=slow.rank,
        pod=slow.agent,
        node=slow.node,
        z_score=slow.z_score,
        slowdown=round(slow.own_seconds / slow.median_seconds, 2),
    )


def _figures_of(progress: Progress) -> dict[str, float | int | None]:
    return {
        "step": progress.step,
        "total_steps": progress.total_steps,
        "tokens": progress.tokens,
        "loss": _rounded(progress.loss, 4),
        "tokens_per_second": _rounded(progress.tokens_per_second, 0),
        "step_seconds": _rounded(progress.step_seconds, 3),
        "mfu": None if progress.mfu is None else _rounded(progress.mfu, 4),
    }


def _rounded(value: float, digits: int) -> float | None:
    """As a person reads it. JSON has no infinities: the API server would refuse the status."""
    return round(value, digits) if math.isfinite(value) else None


def _bounded(difference: float) -> float:
    return difference if math.isfinite(difference) else _UNLIKE


def _checkpoints(old: Checkpoints, document: StatusDocument) -> Checkpoints:
    saved = document.latest_checkpoint
    latest = old.latest
    if saved is not None:
        latest = CheckpointStatus(
            step=saved.step,
            path=saved.path,
            time=timestamp(saved.time),
            stall_seconds=saved.stall_seconds,
        )
    told = tuple(_quarantine(report) for report in document.quarantined)
    if latest is not None and saved is None and any(_is_of(entry, latest) for entry in told):
        latest = None  # the coordinator knows of no other yet
    known = {(entry.path, entry.time) for entry in old.quarantined}
    new = tuple(entry for entry in told if (entry.path, entry.time) not in known)
    kept = (*old.quarantined, *new)[-_KEPT_QUARANTINED:]
    return Checkpoints(
        latest=latest,
        memory=_memory(old.memory, document),
        cadence=_cadence(document.cadence) or old.cadence,
        blocking=_blocking(old.blocking, document),
        quarantined=kept,
    )


def _memory(
    old: MemoryCheckpointStatus | None, document: StatusDocument
) -> MemoryCheckpointStatus | None:
    held = document.memory_checkpoint
    if held is None:
        return old
    return MemoryCheckpointStatus(
        step=held.step,
        stall_seconds=_rounded(held.stall_seconds, 3),
        problem=held.problem and held.problem[:_MAX_PROBLEM],
    )


def _cadence(known: Cadence) -> CadenceStatus | None:
    """None from a coordinator that has not decided yet."""
    if not known.interval_steps:
        return None
    cost, share = known.cost, known.stall_share
    return CadenceStatus(
        interval_steps=known.interval_steps,
        stall_seconds=round(cost.stall_seconds, 3) if cost else None,
        dip_seconds=round(cost.dip_seconds, 3) if cost else None,
        save_seconds=round(cost.save_seconds, 3) if cost else None,
        stall_share=None if share is None else round(share, 4),
        mtbf_seconds=round(known.mtbf_seconds),
        interruptions=known.interruptions,
    )


def _blocking(old: BlockingStatus | None, document: StatusDocument) -> BlockingStatus | None:
    """From the first time that they block too long until they take half of what they may."""
    known, saved = document.cadence, document.latest_checkpoint
    share, cost = known.stall_share, known.cost
    if share is None or cost is None or saved is None:
        return old
    if share <= (MAX_STALL_SHARE / 2 if old else MAX_STALL_SHARE):
        return None
    return old or BlockingStatus(
        time=timestamp(saved.time),
        step=saved.step,
        stall_share=round(share, 4),
        enough_steps=math.ceil(cost.stall_seconds / MAX_STALL_SHARE / known.step_seconds),
    )


def _is_of(quarantined: QuarantineStatus, saved: CheckpointStatus) -> bool:
    """Whether that very checkpoint was moved away; one saved again since is another."""
    return quarantined.step == saved.step and epoch_seconds(quarantined.time) >= epoch_seconds(
        saved.time
    )


def _quarantine(report: QuarantinedReport) -> QuarantineStatus:
    return QuarantineStatus(
        step=report.step, path=report.path, reason=report.reason, time=timestamp(report.time)
    )


def is_behind(old: RunStatus, new: RunStatus) -> bool:
    """Whether `new` has figures that `old` has not. Time that was only waited is none of them."""
    return _figures(old) != _figures(new)


def _figures(status: RunStatus) -> tuple[object, ...]:
    training = status.training
    shown = training.model_copy(update=_NOT_FIGURES) if training else None
    checkpoints = status.checkpoints
    return (shown, checkpoints.latest, checkpoints.memory, checkpoints.cadence)


_NOT_FIGURES: dict[str, object] = {
    "updated_at": None,
    "goodput": None,
    "productive_seconds": 0.0,
    "badput_seconds": {},
    "account": None,
}


def _without_figures(status: RunStatus) -> RunStatus:
    """What is worth a write at once. The first figures of a run are, and what it does."""
    memory = status.checkpoints.memory
    problem = MemoryCheckpointStatus(step=0, problem=memory.problem) if memory else None
    checkpoints = status.checkpoints.model_copy(
        update={"latest": None, "memory": problem, "cadence": None}
    )
    training = status.training and TrainingStatus(
        step=min(1, status.training.step),
        account=status.training.account
        and TimeAccount(activity=status.training.account.activity, until=""),
    )
    return status.model_copy(update={"training": training, "checkpoints": checkpoints})
