"""What a program of a script run tells its agent, and asks of it. Standard library only.

docs/script-engine.md has the contract, examples/script a whole program. In the order of use:

    start = script.resume_from()           rank 0: the newest checkpoint that verifies, or None
    script.ready(step)                     every rank, once it is set up and has loaded
    script.report(step, loss, tokens)      rank 0, after each step
    script.should_save(step)               whether a checkpoint is due; the ranks must agree
    script.stop_requested()                whether SIGTERM came; the ranks must agree
    folder = script.begin_checkpoint(step) rank 0; then every rank writes below `folder`
    script.saved(step)                     rank 0, once all ranks have written
    script.leave()                         every rank, after the save that a stop asked for

Without a run around it (by hand under torchrun) there is nothing to resume, no save is due, and
reports go nowhere. For programs in other languages, the part that has to do with checkpoints:

    python -m pretrain_llm.script resume-from | begin STEP | saved STEP [--tokens N]
"""

from __future__ import annotations

import argparse
import atexit
import math
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from . import artifacts, reports
from .agent import stacks
from .checkpoints import folders
from .checkpoints.selection import Identity, newest_whole
from .contract import config, environment, exit_codes
from .contract.manifests import CheckpointManifest
from .contract.reports import (
    PERSISTENT,
    SCRATCH,
    QuarantinedReport,
    RestoredReport,
    SavedReport,
    SavingReport,
    StepReport,
    WorkerReport,
)
from .errors import NonFiniteError


@dataclass(frozen=True)
class Checkpoint:
    step: int
    tokens: int  # trained so far
    folder: Path


class NoRunError(RuntimeError):
    """There is no run around this program, and so no place for checkpoints."""


@dataclass
class _Process:
    """What this process remembers between calls."""

    is_asked_to_stop: bool = False
    stepped_at: float | None = None  # time.monotonic(): ready, or the last step
    tokens: int = 0  # of the last step or the checkpoint
    begun_at: float | None = None  # time.monotonic(): the save under way
    saved_step: int = 0  # newest on the storage: from there auto counts


_process = _Process()


def resume_from() -> Checkpoint | None:
    """The newest checkpoint that verifies; None: start from scratch. Rank 0 calls it, once, before
    anything else, and tells the others.

    Damaged ones are moved away, saves that never finished are removed.
    """
    run = _run()
    if run is None:
        return None
    root = Path(run.layout.checkpoints)
    seen = folders.scan(root)
    folders.remove_unfinished(root, seen)
    manifest = newest_whole(
        (item for item in seen if item.manifest or item.damage),
        _identity(run),
        str(root),
        damage=lambda found: folders.described(
            artifacts.mismatches(folders.step_folder(root, found.step), found.files)
        ),
        set_aside=lambda step, reason: _set_aside(root, step, reason),
    )
    if manifest is None:
        return None
    _process.tokens, _process.saved_step = manifest.tokens, manifest.step
    return Checkpoint(manifest.step, manifest.tokens, folders.step_folder(root, manifest.step))


def ready(step: int) -> None:
    """This rank is set up, and has loaded the state after `step` (0: from scratch). From now on
    SIGTERM asks for a save; before, it ends the process, which has nothing to lose.
    """
    signal.signal(signal.SIGTERM, _asked_to_stop)
    _process.stepped_at = time.monotonic()
    _tell(restored=RestoredReport(step, time.time(), PERSISTENT if step else SCRATCH))


def report(step: int, loss: float, tokens: int) -> None:
    """Step `step` is done. `loss`: mean over its batch; `tokens`: trained so far, by all ranks.

    Raises NonFiniteError where the loss is no number: the run ends, since only the program itself
    could skip the batches that did it.
    """
    if not math.isfinite(loss):
        raise NonFiniteError(f"loss is not finite: {loss} at step {step}", step=step)
    now, before = time.monotonic(), _process.stepped_at
    seconds = now - before if before is not None else 0.0
    rate = (tokens - _process.tokens) / seconds if seconds else 0.0
    _process.stepped_at, _process.tokens = now, tokens
    _tell(step=StepReport(step, loss, tokens, seconds, rate, time.time()))


def stop_requested() -> bool:
    """Whether this process was asked to save and leave. Signals reach the ranks at different times:
    act only on what all of them have agreed on.
    """
    return _process.is_asked_to_stop


def should_save(step: int) -> bool:
    """Whether spec.checkpoint has a save due after `step`. With interval auto the ranks may hear of
    a new interval at different times: act only on what all of them have agreed on.
    """
    run = _run()
    if run is None:
        return False
    policy = run.checkpoint
    if policy.keeps(step):
        return True
    if policy.interval is not None:
        return step % policy.interval == 0
    return step - _process.saved_step >= (_told_interval() or policy.min_interval)


def begin_checkpoint(step: int) -> Path:
    """An empty folder for the state after `step`, and steps may stand still from now on. Rank 0.

    Raises NoRunError.
    """
    root = _root()
    _process.begun_at = time.monotonic()
    _tell(saving=SavingReport(step, time.time()))
    folder = folders.step_folder(root, step)
    if folder.exists():
        folders.remove(root, step)
    folder.mkdir(parents=True)
    return folder


def saved(step: int, tokens: int | None = None) -> None:
    """All ranks have written below the folder of `step`: from here on the checkpoint counts.

    Hashes the files, writes the manifest, and deletes what spec.checkpoint does not keep. Rank 0.
    `tokens`: trained so far; default: as the last report said. Raises NoRunError, OSError.
    """
    root, run = _root(), _run()
    assert run is not None
    now, begun = time.monotonic(), _process.begun_at
    seconds = now - begun if begun is not None else 0.0
    manifest = _manifest(run, root, step, _process.tokens if tokens is None else tokens)
    folders.write_manifest(root, manifest)
    _process.saved_step = step
    _process.stepped_at = time.monotonic()
    _tell(saved=_saved_report(root, manifest, seconds))
    _tell(saving=SavingReport(step, time.time(), over=True))
    folders.apply_retention(root, run.checkpoint)


def leave() -> NoReturn:
    """Ends this process as one that was asked to, and has saved."""
    raise SystemExit(exit_codes.SAVED)


def _asked_to_stop(_number: int, _frame: FrameType | None) -> None:
    _process.is_asked_to_stop = True


def _run() -> config.AnyConfig | None:
    path = os.environ.get(environment.CONFIG, environment.CONFIG_PATH)
    return config.load_any(path) if os.path.exists(path) else None


def _root() -> Path:
    run = _run()
    if run is None:
        raise NoRunError(f"{environment.CONFIG}: names no file, so there is no run to save for")
    return Path(run.layout.checkpoints)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _told_interval() -> int | None:
    try:
        return int(Path(os.environ.get(environment.INTERVAL_FILE, "")).read_text())
    except (OSError, ValueError):
        return None


def _identity(run: config.AnyConfig) -> Identity:
    """The program alone knows what its checkpoints fit: another command may go on from them."""
    return Identity("", "", "", config.digest(run), int(os.environ.get("WORLD_SIZE", "1")))


def _manifest(run: config.AnyConfig, root: Path, step: int, tokens: int) -> CheckpointManifest:
    identity = _identity(run)
    return CheckpointManifest(
        step=step,
        tokens=tokens,
        samples=0,  # where it is in its data is in the program's own state
        world_size=identity.world_size,
        model_fingerprint=identity.model_fingerprint,
        tokenizer_fingerprint=identity.tokenizer_fingerprint,
        data_digest=identity.data_digest,
        config_digest=identity.config_digest,
        saved_at=time.time(),
        versions={},
        files=artifacts.entries(folders.step_folder(root, step)),
    )


def _saved_report(root: Path, manifest: CheckpointManifest, seconds: float) -> SavedReport:
    return SavedReport(
        step=manifest.step,
        path=str(folders.step_folder(root, manifest.step)),
        bytes=sum(entry.bytes for entry in manifest.files),
        time=manifest.saved_at,
        stall_seconds=seconds,
        seconds=seconds,
    )


def _set_aside(root: Path, step: int, reason: str) -> None:
    path = folders.quarantine(root, step, reason)
    _tell(quarantined=QuarantinedReport(step, reason, str(path), time.time()))


def _tell(
    *,
    step: StepReport | None = None,
    restored: RestoredReport | None = None,
    saving: SavingReport | None = None,
    saved: SavedReport | None = None,
    quarantined: QuarantinedReport | None = None,
) -> None:
    number = int(os.environ.get(environment.ROUND, "0"))
    reports.send(
        WorkerReport(
            rank=_rank(),
            round=number,
            step=step,
            restored=restored,
            saving=saving,
            saved=saved,
            quarantined=quarantined,
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="pretrain_llm.script")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("resume-from", help="prints step, tokens and folder; nothing: from scratch")
    commands.add_parser("begin", help="prints the folder to write to").add_argument(
        "step", type=int
    )
    end = commands.add_parser("saved", help="the folder is whole")
    end.add_argument("step", type=int)
    end.add_argument("--tokens", type=int, default=0, help="trained so far")
    given = parser.parse_args()
    if given.command == "begin":
        print(begin_checkpoint(given.step))
    elif given.command == "saved":
        saved(given.step, given.tokens)
    elif found := resume_from():
        print(found.step, found.tokens, found.folder)
    return exit_codes.OK


if environment.STACK_FILE in os.environ:  # an agent may ask where this process stands
    stacks.answer(os.environ[environment.STACK_FILE])
atexit.register(reports.flush)

if __name__ == "__main__":
    sys.exit(main())
