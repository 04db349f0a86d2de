"""The kernel's count of processes it killed for memory in this pod: tells an OOM from a kill -9."""

from __future__ import annotations

from pathlib import Path

# cgroup v2, then v1; inside a container the pod's own group is the root of the mount.
_FILES = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))


def oom_kills(text: str) -> int:
    """The `oom_kill` counter of memory.events (v2) or memory.oom_control (v1); 0 if it has none."""
    counters = (line.split() for line in text.splitlines())
    return next((int(c[1]) for c in counters if len(c) == 2 and c[0] == "oom_kill"), 0)


def read_oom_kills() -> int:
    for path in _FILES:
        try:
            return oom_kills(path.read_text())
        except OSError:
            continue
    return 0
