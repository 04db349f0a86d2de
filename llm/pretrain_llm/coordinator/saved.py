"""Which checkpoints a run has, from what its workers tell of them. Pure.

A save adds one. A later word takes it back: it was found damaged, or a worker went on from an older
step, which it only does where nothing newer verifies. Times are the coordinator's.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..contract.reports import QuarantinedReport, RestoredReport, SavedReport

KEPT = 20

Saved = tuple[SavedReport, ...]  # oldest first


def latest(saved: Saved) -> SavedReport | None:
    return saved[-1] if saved else None


def with_saved(
    saved: Saved, told: SavedReport | None, quarantined: Iterable[QuarantinedReport]
) -> Saved:
    """With `told`, also where it is late or told again, unless it was found damaged since."""
    if told is None or any(_is_of(report, told) for report in quarantined):
        return saved
    others = (report for report in saved if report.step != told.step)
    return tuple(sorted((*others, told), key=lambda report: report.time))[-KEPT:]


def with_quarantined(saved: Saved, damaged: QuarantinedReport) -> Saved:
    return tuple(report for report in saved if not _is_of(damaged, report))


def with_restored(saved: Saved, restored: RestoredReport) -> Saved:
    """Without what was saved before and is newer than the step that training went on from."""
    return tuple(
        report for report in saved if report.step <= restored.step or report.time > restored.time
    )


def _is_of(damaged: QuarantinedReport, saved: SavedReport) -> bool:
    """Whether it is the damaged one, and not a later save of the same step."""
    return damaged.step == saved.step and damaged.time >= saved.time
