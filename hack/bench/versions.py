"""What the figures depend on: the machine and the versions."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path

from hack import local_values
from tests.cluster import binaries


def environment() -> dict[str, str]:
    train = Path(_output(local_values.ROOT / "hack" / "envs.sh", "path", "train"))
    site_packages = [str(path) for path in train.glob("lib/python3*/site-packages")]
    found = {item.name: item.version for item in distributions(path=site_packages)}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} × {_processor()}, {_memory_gib():.0f} GiB",
        "kubernetes": _output(binaries.path("kubelet"), "--version").removeprefix("Kubernetes "),
        "torch": found["torch"],
        "torchtitan": found["torchtitan"],
    }


def commit() -> str:
    return _output("git", "-C", local_values.ROOT, "rev-parse", "--short", "HEAD")


def _output(*command: str | Path) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else os.uname().machine


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
