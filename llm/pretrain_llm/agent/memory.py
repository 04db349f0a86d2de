"""What the pod's memory cgroup says: its limit, and how many processes the kernel killed for it,
which tells an OOM from a kill -9.
"""

from __future__ import annotations

from pathlib import Path

# cgroup v2, then v1; inside a container the pod's own group is the root of the mount.
_FILES = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
_LIMIT_FILES = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_UNLIMITED_BYTES = 1 << 60  # v1 says "no limit" with a number near 2^63


def limit_bytes(text: str) -> int | None:
    """None: there is no limit."""
    value = text.strip()
    return int(value) if value.isdecimal() and int(value) < _UNLIMITED_BYTES else None


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


def read_limit_bytes() -> int | None:
    """None where there is no limit, or none that can be read."""
    for path in _LIMIT_FILES:
        try:
            return limit_bytes(path.read_text())
        except OSError:
            continue
    return None
