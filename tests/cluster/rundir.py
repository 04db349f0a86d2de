"""Where a cluster keeps its files, and who may delete them.

A run directory is made by this package, carries a marker, and is removed as a whole. A directory
without the marker is somebody else's and is left alone.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .processes import ClusterError, announce, children, kill, recorded

_MARKER = ".pretrain-cluster"
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")


def cache_directory() -> Path:
    """The project's cache outside the repository, safe to delete while no cluster is up."""
    default = Path.home() / ".cache" / "pretrain-operator"
    return Path(os.environ.get("PRETRAIN_CACHE") or default).absolute()


def default_directory(name: str) -> Path:
    """The run directory of the cluster of this name; ValueError unless the name is usable."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"cluster name {name!r} must be 1 to 20 of a-z, 0-9 and '-', beginning with a letter"
        )
    return cache_directory() / "clusters" / name


def identity(name: str, directory: Path) -> str:
    """A name for kernel objects that no cluster in another directory has."""
    return f"pretrain-{name}-{hashlib.sha256(bytes(directory)).hexdigest()[:6]}"


def create(directory: Path) -> None:
    """Makes an empty run directory; raises ClusterError if something else is there."""
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise ClusterError(f"{directory} is not empty: name another directory with --dir")
    (directory / _MARKER).touch()


def exists(directory: Path) -> bool:
    """Whether this is a run directory of ours."""
    return (directory / _MARKER).exists()


def kill_recorded(directory: Path) -> None:
    """Ends every process that was started from a run directory, and its direct children.

    The direct child of a node's recorded process is process 1 of the node.
    """
    found = list(recorded(directory).values())
    kill([*(child for process in found for child in children(process)), *found])


def remove(directory: Path) -> None:
    """Deletes a run directory; never one without the marker, and never through a mount."""
    if not exists(directory):
        return
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    below = [mount for mount in mounts if Path(mount).is_relative_to(directory)]
    if below:
        raise ClusterError(f"{below[0]} is mounted below {directory}: unmount it first")
    shutil.rmtree(directory)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Holds an advisory lock that ends with this process, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            announce(f"waiting for another command that holds {lock}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
