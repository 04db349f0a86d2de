"""The faults: each is armed first, then fired at a moment, and gives the time when it struck."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hack.demo.kube import Kube, StepError
from tests.cluster import Cluster

from . import trials
from .systems import Pod

# Runs in a training pod: finds a worker, says so, and sends the signal when it is told to. The
# workers of our agents are in a list; torchrun's are the children of process 1.
_SIGNAL_A_WORKER = """
import json, os, pathlib, sys, time
listed = pathlib.Path("/tmp/workers.json")
if listed.exists():
    pid = json.loads(listed.read_text())["workers"][0]["pid"]
else:
    stats = (p.read_text().rsplit(")", 1)[1].split() + [p.parent.name]
             for p in pathlib.Path("/proc").glob("[0-9]*/stat"))
    pid = min(int(stat[-1]) for stat in stats if stat[1] == "1")
print("armed", flush=True)
sys.stdin.readline()
print(time.time(), flush=True)
os.kill(pid, int(sys.argv[1]))
"""
_SIGNALS = {trials.KILL: 9, trials.HANG: 19}

Fire = Callable[[], float]


@contextmanager
def armed(fault: str, pod: Pod, kube: Kube, cluster: Cluster) -> Iterator[Fire]:
    """Gives the function that makes the fault happen; what it broke is repaired at the end."""
    if fault in _SIGNALS:
        with _armed_signal(_SIGNALS[fault], pod, kube) as fire:
            yield fire
    elif fault == trials.POD_DELETE:
        yield lambda: _delete(pod, kube)
    else:
        try:
            yield lambda: _power_off(pod, cluster)
        finally:
            cluster.node(pod.node).power_on()
            cluster.await_ready()


@contextmanager
def _armed_signal(number: int, pod: Pod, kube: Kube) -> Iterator[Fire]:
    command = [kube.kubectl, f"--kubeconfig={kube.kubeconfig}", "exec", "-i", "-n", pod.namespace,
               pod.name, "--", "python", "-c", _SIGNAL_A_WORKER, str(number)]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        if process.stdout.readline().strip() != "armed":
            raise StepError(f"no worker was found in pod {pod.name}")

        def fire() -> float:
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        yield fire
        process.stdin.close()


def _delete(pod: Pod, kube: Kube) -> float:
    at = time.time()
    kube.run("delete", "pod", pod.name, "-n", pod.namespace, "--wait=false")
    return at


def _power_off(pod: Pod, cluster: Cluster) -> float:
    """First the cable: a machine without power sends no farewell, but killed processes do."""
    at = time.time()
    node = cluster.node(pod.node)
    node.pull_cable()
    node.power_off()
    return at
