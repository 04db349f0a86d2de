"""Hashes a saved checkpoint's files and writes its manifest, beside the training loop.

    step loop     save(10) ........ save(20) ........
    DCP's thread          write 10          write 20
    this thread                   hash, gather, manifest 10, retention

One thread a rank, which works in the order of the saves, so that the ranks' collectives match. It
is a daemon: where a peer has died it would wait for it for ever, and must not hold the exit.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from ..contract.config import CheckpointConfig
from ..contract.curriculum import Consumed
from ..contract.data_steps import SkippedData
from ..contract.manifests import CheckpointManifest, FileEntry
from ..contract.reports import SavedReport
from . import folders
from .selection import Identity


@dataclass(frozen=True)
class Save:
    step: int
    written: Future[object] | None  # None: everything is on disk
    begun: float  # time.monotonic()
    stall_seconds: float


class Sealer:
    """Every rank makes one, and submits the same saves in the same order."""

    def __init__(
        self,
        root: Path,
        identity: Identity,
        policy: CheckpointConfig,
        versions: dict[str, str],
        consumed: Callable[[int], Consumed],
        group: dist.ProcessGroup,
        on_saved: Callable[[SavedReport], None],
    ) -> None:
        """`consumed`: by the run when so many steps are finished. `group`: gloo over all ranks,
        used by nobody else between `submit` and the end of `drain`."""
        self._root, self._identity, self._policy = root, identity, policy
        self._versions, self._group, self._on_saved = versions, group, on_saved
        self.skipped = SkippedData()  # that the saved steps have passed, or will come to
        self._consumed = consumed
        self._saves: queue.Queue[Save] = queue.Queue()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="sealer", daemon=True)

    def submit(self, save: Save) -> None:
        """Raises what an earlier save failed with."""
        self._raise_failure()
        if not self._thread.is_alive():
            self._thread.start()
        self._saves.put(save)

    def drain(self) -> None:
        """Waits until all that was submitted is sealed. Raises what it failed with."""
        self._saves.join()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while True:
            save = self._saves.get()
            try:
                if self._failure is None:
                    self._seal(save)
            except BaseException as error:  # told to the step loop, which ends the worker
                logging.getLogger(__name__).exception("step %d was not sealed", save.step)
                self._failure = error
            finally:
                self._saves.task_done()

    def _seal(self, save: Save) -> None:
        if save.written is not None:
            save.written.result()
        files = self._gathered(save.step)
        if files is None:
            return
        manifest = self._manifest(save.step, files)
        folders.write_manifest(self._root, manifest)
        self._on_saved(_saved_report(self._root, manifest, save))
        folders.apply_retention(self._root, self._policy)

    def _gathered(self, step: int) -> tuple[FileEntry, ...] | None:
        """Everybody's files on rank 0, None on the others."""
        rank, ranks = dist.get_rank(self._group), dist.get_world_size(self._group)
        mine = folders.owned_entries(folders.step_folder(self._root, step), rank)
        everybodys: list[tuple[FileEntry, ...]] | None = [()] * ranks if rank == 0 else None
        dist.gather_object(mine, everybodys, dst=0, group=self._group)
        return None if everybodys is None else tuple(sorted(sum(everybodys, ()), key=_path))

    def _manifest(self, step: int, files: tuple[FileEntry, ...]) -> CheckpointManifest:
        identity, consumed = self._identity, self._consumed(step)
        return CheckpointManifest(
            step=step,
            tokens=consumed.tokens,
            samples=consumed.samples,
            world_size=identity.world_size,
            model_fingerprint=identity.model_fingerprint,
            tokenizer_fingerprint=identity.tokenizer_fingerprint,
            data_digest=identity.data_digest,
            config_digest=identity.config_digest,
            saved_at=time.time(),
            versions=self._versions,
            files=files,
            skipped=self.skipped,
        )


def _path(entry: FileEntry) -> str:
    return entry.path


def _saved_report(root: Path, manifest: CheckpointManifest, save: Save) -> SavedReport:
    return SavedReport(
        step=manifest.step,
        path=str(folders.step_folder(root, manifest.step)),
        bytes=sum(entry.bytes for entry in manifest.files),
        time=manifest.saved_at,
        stall_seconds=save.stall_seconds,
        seconds=time.monotonic() - save.begun,
    )
