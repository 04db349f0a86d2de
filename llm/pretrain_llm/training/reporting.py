"""One worker's reports to its agent, with its rank and round on them."""

from __future__ import annotations

import os

from .. import reports
from ..contract import environment
from ..contract.reports import (
    MemorySavedReport,
    OwnTimeReport,
    QuarantinedReport,
    RestoredReport,
    SavedReport,
    SavingReport,
    StepReport,
    WorkerReport,
)


def report(
    *,
    step: StepReport | None = None,
    restored: RestoredReport | None = None,
    saving: SavingReport | None = None,
    saved: SavedReport | None = None,
    memory_saved: MemorySavedReport | None = None,
    quarantined: QuarantinedReport | None = None,
    own_time: OwnTimeReport | None = None,
) -> None:
    """Exactly one of them."""
    rank, number = int(os.environ["RANK"]), int(os.environ.get(environment.ROUND, "0"))
    reports.send(
        WorkerReport(
            rank=rank,
            round=number,
            step=step,
            restored=restored,
            saving=saving,
            saved=saved,
            memory_saved=memory_saved,
            quarantined=quarantined,
            own_time=own_time,
        )
    )
