"""Control groups of the nodes: one subtree per node, in every hierarchy of this machine.

Works on version 1 (one hierarchy per controller), on version 2 (one for all) and on the hybrid.
It never moves a process: runc and the kubelet put the pods' processes in.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .processes import ClusterError, wait_until


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup file system."""

    mount: Path
    version: int


def hierarchies(mounts: str) -> list[Hierarchy]:
    """The cgroup hierarchies in a text in the form of /proc/self/mounts."""
    versions = {"cgroup": 1, "cgroup2": 2}
    rows = [line.split()[1:3] for line in mounts.splitlines()]
    found = {path: versions[kind] for path, kind in rows if kind in versions}
    return [Hierarchy(Path(path), version) for path, version in sorted(found.items())]


def create(group: str) -> None:
    """Makes `group`, a relative path, in every hierarchy with all its controllers usable."""
    for hierarchy in _mounted():
        current = hierarchy.mount
        for part in Path(group).parts:
            if hierarchy.version == 2:
                _delegate_controllers(current)
            current = current / part
            current.mkdir(exist_ok=True)
            if hierarchy.version == 1:
                _inherit_cpuset(current)


def remove(group: str) -> None:
    """Removes `group` and everything below it; the processes in it must have been killed."""
    for hierarchy in _mounted():
        top = hierarchy.mount / group
        wait_until(partial(_removed, top), f"cgroup {top} to empty", 10)


def _mounted() -> list[Hierarchy]:
    return hierarchies(Path("/proc/self/mounts").read_text())


def _removed(top: Path) -> bool:
    """Tries once; a group stays busy for a moment after its last process was killed."""
    try:
        for folder, _, _ in os.walk(top, topdown=False):
            os.rmdir(folder)
    except OSError:
        return False
    return not top.exists()


def _inherit_cpuset(folder: Path) -> None:
    """A new version 1 cpuset has no CPU and no memory node, and nothing may enter it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = folder / name
        if file.exists() and not file.read_text().strip():
            file.write_text((folder.parent / name).read_text())


def _delegate_controllers(folder: Path) -> None:
    wanted = set((folder / "cgroup.controllers").read_text().split())
    missing = wanted - set((folder / "cgroup.subtree_control").read_text().split())
    if not missing:
        return
    try:
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in missing))
    except OSError as error:
        raise ClusterError(
            f"cannot hand the controllers {sorted(missing)} down from {folder}: {error.strerror}. "
            "In a container, move its processes out of the root cgroup first "
            "(mkdir /sys/fs/cgroup/init; write each pid to its cgroup.procs)."
        ) from error
