"""A worker's checkpoints in memory: its shards, copied flat into the node's tmpfs, and back.

Every `interval` steps all ranks copy what they hold, tensor by tensor, into one file each: one
copy, no serialisation, no pickle. Training stands still for that copy only; the agent hashes it
and sends it to its peer. The same mesh reads it back the same way, so the state is the same to the
last bit; any other mesh, model or data starts from the volume.

A node that has not got rid of its last checkpoint yet has no room for the next: then no rank
saves. Where a rank could not write its last one, that checkpoint is never whole, and all nodes make
room of it. The ranks agree on both as they agree to stop: posted at the step before, read at this
one.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.stateful import Stateful
from torch.distributed.tensor import DTensor

from .. import artifacts
from ..checkpoints import generations
from ..checkpoints.selection import OTHER_HISTORY, Identity
from ..contract import codec, environment
from ..contract.data_steps import SkippedData
from ..contract.memory import Generation, parsed
from ..contract.reports import MEMORY, MemorySavedReport
from . import groups
from .reporting import report

_ALIGNMENT_BYTES = 64

# What a rank posts; the greatest holds for all.
_ROOM, _FULL, _FAILED = range(3)

Branch = tuple[str | int, ...]  # where a leaf is in a tree of dicts and lists
States = dict[str, Any]  # names to tensors, values and Statefuls, as torchtitan's manager has them

logger = logging.getLogger(__name__)


class ShardMismatchError(RuntimeError):
    """A shard of the same mesh, model and code does not fit: a fault of ours."""


@dataclass(frozen=True)
class Place:
    """Where this process runs, and what for."""

    root: Path
    round: int
    node_rank: int
    local_rank: int
    offered: Generation | None  # what the agent has in memory for this round
    source: str  # reports.MEMORY | PEER: how it came there


def place() -> Place:
    variables = os.environ
    return Place(
        root=Path(variables.get(environment.MEMORY) or environment.MEMORY_PATH),
        round=int(variables.get(environment.ROUND, "0")),
        node_rank=int(variables.get("GROUP_RANK", "0")),
        local_rank=int(variables["LOCAL_RANK"]),
        offered=parsed(variables.get(environment.RESTORE, "")),
        source=variables.get(environment.RESTORE_SOURCE, MEMORY),
    )


class MemoryTier:
    """Of one process; every rank makes one and calls it in the same order."""

    def __init__(self, interval: int, identity: Identity, mesh: tuple[int, ...]) -> None:
        self._interval = interval
        self._place = place()
        self._origin = {**asdict(identity), "mesh": list(mesh), "rank": dist.get_rank()}
        self.skipped = SkippedData()  # as of now
        self.loaded_step: int | None = None  # None: not from memory
        self._group = groups.between_steps()
        self._word = torch.zeros(1, dtype=torch.int32)
        self._posted: dist.Work | None = None
        self._last_step = 0  # that all ranks wrote, or tried to
        self._has_failed = False  # to write that one

    @property
    def source(self) -> str:
        return self._place.source

    def at_boundary(self, step: int, states: Callable[[], States]) -> None:
        """After each step but the last: saves where it is time to, and there is room.

        Not before the first: an optimiser that has not stepped steps when it shows its state.
        """
        is_due = step > 0 and step % self._interval == 0 and step != self.loaded_step
        if is_due and self._has_room():
            self._save(step, states())
        if (step + 1) % self._interval == 0:
            self._post()

    def _post(self) -> None:
        place = self._place
        is_full = generations.is_full(place.root, place.node_rank, self._interval)
        self._word.fill_(_FAILED if self._has_failed else _FULL if is_full else _ROOM)
        self._posted = dist.all_reduce(
            self._word, dist.ReduceOp.MAX, group=self._group, async_op=True
        )

    def _has_room(self) -> bool:
        """On every node. Where nothing was posted, the round has just begun, and nothing is kept
        but what it began from.
        """
        if self._posted is None:
            return True
        self._posted.wait()
        self._posted = None
        if self._word.item() == _FAILED:  # what has its place is never whole
            generations.remove(self._place.root, self._generation(self._last_step))
        return self._word.item() != _FULL

    def _generation(self, step: int) -> Generation:
        return Generation(self._place.round, step)

    def _save(self, step: int, states: States) -> None:
        begun = time.monotonic()
        shards = generations.folder(self._place.root, self._generation(step), self._place.node_rank)
        self._last_step, self._has_failed = step, False
        try:
            shards.mkdir(parents=True, exist_ok=True)
            origin = {**self._origin, "skipped": codec.encode(self.skipped)}
            size = write(shards, self._place.local_rank, states, origin, step)
        except OSError as error:  # the tmpfs is full: the volume's checkpoints must do
            logger.error("step %d was not kept in memory: %s", step, error)
            generations.tensors_path(shards, self._place.local_rank).unlink(missing_ok=True)
            self._has_failed = True
            return
        stall_seconds = time.monotonic() - begun
        report(memory_saved=MemorySavedReport(step, size, stall_seconds, time.time()))

    def can_load(self, saved_step: int, must_keep: Callable[[int], bool]) -> bool:
        """Whether all ranks can start from what their agents offer: the same answer on each.

        `saved_step`: of the newest checkpoint on the volume; an older offer is not taken, nor one
        past a step that `must_keep` on the volume, and whose save the fault cut short.
        """
        problem = self._problem(saved_step, must_keep)
        problems: list[str | None] = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(problems, problem, group=self._group)
        if any(problems) and self._place.offered:
            logger.error("not restored from memory: %s", problem or "another rank cannot")
        return not any(problems)

    def load(self, states: States) -> None:
        """Changes `states` in place. Raises ShardMismatchError: the next round will not try again,
        since this one makes no step.
        """
        read(self._shards(), self._place.local_rank, states)
        assert self._place.offered is not None
        self.loaded_step = self._place.offered.step

    def _shards(self) -> Path:
        assert self._place.offered is not None
        return generations.folder(self._place.root, self._place.offered, self._place.node_rank)

    def _problem(self, saved_step: int, must_keep: Callable[[int], bool]) -> str | None:
        """Why this rank cannot start from what is offered, in words.

        Without a look at the training state: to show it, an optimiser that has not stepped steps.
        """
        offered, local_rank = self._place.offered, self._place.local_rank
        if offered is None:
            return "nothing is in memory"
        if words := outdated(offered, saved_step, must_keep):
            return words
        shards = generations.read_shards(self._place.root, offered, self._place.node_rank)
        if shards is None:
            return f"{self._shards()} is not whole"
        mine = [entry for entry in shards.files if entry.path.startswith(f"{local_rank}.")]
        if wrong := artifacts.mismatches(self._shards(), mine):
            return "; ".join(wrong)
        saved = _header(self._shards(), local_rank)["origin"]
        others = [name for name in self._origin if saved.get(name) != self._origin[name]]
        if others:
            return f"of another {', '.join(others)}"
        then = codec.decode(SkippedData, saved.get("skipped", {}))
        return None if then.agrees(self.skipped, offered.step) else OTHER_HISTORY


def outdated(offered: Generation, saved_step: int, must_keep: Callable[[int], bool]) -> str | None:
    """Why what is offered is not to be gone on from, by its step alone, in words."""
    if offered.step < saved_step:
        return f"step {saved_step} is on the volume, step {offered.step} in memory"
    if unsaved := [step for step in range(saved_step + 1, offered.step) if must_keep(step)]:
        return f"step {unsaved[0]} is to be kept on the volume, and is not there yet"
    return None


# One worker's file


@torch.no_grad()
def write(shards: Path, local_rank: int, states: States, origin: dict[str, Any], step: int) -> int:
    """Writes a worker's shard; its bytes. Raises OSError, with the file left as it is.

    Written, not mapped: a mapped page that a full tmpfs cannot give is a SIGBUS, and the kernel
    clears every page before it is written to.
    """
    tensors, values, size = _layout(_collected(states))
    with open(generations.tensors_path(shards, local_rank), "wb") as file:
        for entry, tensor in tensors:
            file.seek(entry["offset"])
            file.write(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
        file.truncate(size)
    header = {
        "origin": origin,
        "step": step,
        "tensors": [entry for entry, _ in tensors],
        "values": values,
    }
    generations.write(generations.header_path(shards, local_rank), json.dumps(header))
    return size


@torch.no_grad()
def read(shards: Path, local_rank: int, states: States) -> None:
    """Loads a shard into `states`, whose Statefuls and tensors it changes in place.

    Raises ShardMismatchError before anything is changed.
    """
    header, collected = _header(shards, local_rank), _collected(states)
    tensors, values, size = _layout(collected)
    wanted = ([entry for entry, _ in tensors], [path for path, _ in values])
    if (header["tensors"], [path for path, _ in header["values"]]) != wanted:
        raise ShardMismatchError(f"{shards} has other tensors or values than this training state")
    path = generations.tensors_path(shards, local_rank)
    mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    for entry, tensor in tensors:
        tensor.copy_(_view(mapped, entry))
    loaded = {tuple(path): value for path, value in header["values"]}
    for name, state in states.items():
        tree = _with_values(collected[name], loaded, (name,))
        if isinstance(state, Stateful):
            state.load_state_dict(tree)
        else:
            states[name] = tree


def _header(shards: Path, local_rank: int) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(generations.header_path(shards, local_rank).read_text())
    return header


def _collected(states: States) -> States:
    """As DCP does: a Stateful's tensors are its own, not copies."""
    return {
        name: state.state_dict() if isinstance(state, Stateful) else state
        for name, state in states.items()
    }


Entry = dict[str, Any]  # path, dtype, shape, offset, bytes


def _layout(
    states: States,
) -> tuple[list[tuple[Entry, torch.Tensor]], list[tuple[list[str | int], Any]], int]:
    """Each tensor of this rank with its place in the file, all other values, the file's size."""
    tensors, values, offset = [], [], 0
    for path, leaf in _leaves(states):
        if not isinstance(leaf, torch.Tensor):
            values.append(([*path], leaf))
            continue
        local = leaf.to_local() if isinstance(leaf, DTensor) else leaf.detach()
        entry = {
            "path": [*path],
            "dtype": str(local.dtype).removeprefix("torch."),
            "shape": list(local.shape),
            "offset": offset,
            "bytes": local.numel() * local.element_size(),
        }
        tensors.append((entry, local))
        offset += -(-entry["bytes"] // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    return tensors, values, offset


def _leaves(tree: Any, path: Branch = ()) -> Iterator[tuple[Branch, Any]]:
    if isinstance(tree, dict):
        for name, branch in tree.items():
            yield from _leaves(branch, (*path, name))
    elif isinstance(tree, list | tuple):
        for number, branch in enumerate(tree):
            yield from _leaves(branch, (*path, number))
    else:
        yield path, tree


def _with_values(tree: Any, values: dict[Branch, Any], path: Branch) -> Any:
    """The tree with its values replaced; tensors stay, they were loaded in place."""
    if isinstance(tree, dict):
        return {name: _with_values(tree[name], values, (*path, name)) for name in tree}
    if isinstance(tree, list | tuple):
        return type(tree)(
            _with_values(branch, values, (*path, number)) for number, branch in enumerate(tree)
        )
    return tree if isinstance(tree, torch.Tensor) else values[path]


def _view(mapped: torch.Tensor, entry: Entry) -> torch.Tensor:
    flat = mapped[entry["offset"] : entry["offset"] + entry["bytes"]]
    return flat.view(getattr(torch, entry["dtype"])).view(entry["shape"])
