"""A row for each row of the fault table: what is seen, its class, what cures it, who pays."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from pretrain_llm.contract import exit_codes, symptoms
from pretrain_llm.contract.status import (
    AGENT_RESTARTED,
    LEASE_EXPIRED,
    LOSS_SPIKE,
    MORE_NODES,
    STALLED,
    STOP_REQUESTED,
    WORKER_EXIT,
)
from pretrain_operator import conditions, faults, node_facts
from pretrain_operator.faults import JOB_FAILED, POD_FAILED, Evidence

ROWS = [
    (
        "Preempted",
        Evidence(LEASE_EXPIRED, disruption="PreemptionByScheduler", node_ready=False),
        "NodeReplacement",
        "None",
    ),
    ("AskedToLeave", Evidence(STOP_REQUESTED), "NodeReplacement", "None"),
    ("AskedToLeave", Evidence(WORKER_EXIT, exit_code=exit_codes.SAVED), "NodeReplacement", "None"),
    ("MoreNodes", Evidence(MORE_NODES), "Grow", "None"),
    ("BadInput", Evidence(WORKER_EXIT, exit_code=exit_codes.BAD_INPUT), "Stop", "Application"),
    ("BadInput", Evidence(POD_FAILED, exit_code=exit_codes.BAD_INPUT), "Stop", "Application"),
    (
        "DoNotRestart",
        Evidence(WORKER_EXIT, exit_code=exit_codes.DO_NOT_RESTART),
        "Stop",
        "Application",
    ),
    (
        "DeviceMemoryAtStart",
        Evidence(WORKER_EXIT, exit_code=exit_codes.OUT_OF_MEMORY, steps_since_start=1),
        "Stop",
        "Application",
    ),
    (
        "DeviceMemory",
        Evidence(WORKER_EXIT, exit_code=exit_codes.OUT_OF_MEMORY, steps_since_start=2),
        "WorkerRestart",
        "Application",
    ),
    (
        "HostMemoryAtStart",
        Evidence(WORKER_EXIT, signal=signal.SIGKILL, out_of_memory=True, steps_since_start=0),
        "Stop",
        "Application",
    ),
    (
        "HostMemory",
        Evidence(WORKER_EXIT, signal=signal.SIGKILL, out_of_memory=True, steps_since_start=50),
        "WorkerRestart",
        "Application",
    ),
    (
        "HostMemory",
        Evidence(WORKER_EXIT, signal=signal.SIGKILL, out_of_memory=True),
        "WorkerRestart",
        "Application",
    ),
    (
        "NodeLost",
        Evidence(LEASE_EXPIRED, node_ready=False, pod_gone=True),
        "NodeReplacement",
        "Infrastructure",
    ),
    (
        "PodLost",
        Evidence(LEASE_EXPIRED, node_ready=True, pod_gone=True),
        "NodeReplacement",
        "Infrastructure",
    ),
    (
        "PodLost",
        Evidence(AGENT_RESTARTED, disruption="Evicted"),
        "NodeReplacement",
        "Infrastructure",
    ),
    (
        "DiskPressure",
        Evidence(
            LEASE_EXPIRED,
            disruption="TerminationByKubelet",
            disruption_words="The node was low on resource: ephemeral-storage.",
        ),
        "NodeReplacement",
        "Infrastructure",
    ),
    (
        "PodLost",
        Evidence(
            LEASE_EXPIRED,
            disruption="TerminationByKubelet",
            disruption_words="The node was low on resource: memory.",
        ),
        "NodeReplacement",
        "Infrastructure",
    ),
    (
        "NodeCordoned",
        Evidence(LEASE_EXPIRED, node_ready=True, node_cordoned=True, pod_gone=True),
        "NodeReplacement",
        "Infrastructure",
    ),
    ("AgentLost", Evidence(LEASE_EXPIRED), "NodeReplacement", "Infrastructure"),
    ("AgentLost", Evidence(AGENT_RESTARTED), "NodeReplacement", "Infrastructure"),
    (
        "NodeUnhealthy",
        Evidence(WORKER_EXIT, exit_code=1, node_problem="GPUMissing: 7 of 8"),
        "WorkerRestart",
        "Infrastructure",
    ),
    (
        "NodeUnhealthy",
        Evidence(STALLED, node_problem="SysLogsGPUFallenOff: GPU 3"),
        "WorkerRestart",
        "Infrastructure",
    ),
    ("LossSpike", Evidence(LOSS_SPIKE), "WorkerRestart", "None"),
    ("LossDiverged", Evidence(LOSS_SPIKE, rollbacks_spent=True), "Stop", "Application"),
    (
        "LossDiverged",
        Evidence(WORKER_EXIT, symptom=symptoms.NON_FINITE, rollbacks_spent=True),
        "Stop",
        "Application",
    ),
    ("Hang", Evidence(STALLED), "WorkerRestart", "Application"),
    (
        "Hang",
        Evidence(STALLED, message="rank 1: its process is stopped"),
        "WorkerRestart",
        "Application",
    ),
    (
        "WorkerKilled",
        Evidence(WORKER_EXIT, signal=signal.SIGKILL),
        "WorkerRestart",
        "Infrastructure",
    ),
    ("WorkerCrashed", Evidence(WORKER_EXIT, signal=signal.SIGSEGV), "WorkerRestart", "Application"),
    ("WorkerCrashed", Evidence(WORKER_EXIT, signal=signal.SIGABRT), "WorkerRestart", "Application"),
    ("WorkerError", Evidence(WORKER_EXIT, exit_code=1), "WorkerRestart", "Application"),
    ("PodFailed", Evidence(POD_FAILED, exit_code=1), "NodeReplacement", "Application"),
    ("JobFailed", Evidence(JOB_FAILED), "NewAttempt", "Application"),
    ("Unknown", Evidence("SomethingNew"), "WorkerRestart", "Application"),
]

# What programs say, each in a worker's error; the level and the budget are the row's.
MESSAGES = [
    ("NonFinite", "Loss is not finite (global_avg_loss=nan) at step 7. Stopping training."),
    ("NonFinite", "Loss or gradient norm is not finite"),
    ("StorageFull", "[Errno 28] No space left on device: '/workspace/demo/checkpoints/step-5'"),
    ("StorageFull", "[Errno 122] Disk quota exceeded"),
    ("DeviceBroken", "CUDA error: uncorrectable ECC error encountered"),
    ("DeviceBroken", "CUDA error: uncorrectable NVLink error detected during the execution"),
    ("DeviceBroken", "NVRM: Xid (PCI:0000:cb:00): 79, GPU has fallen off the bus."),
    ("DeviceBroken", "NVRM: Xid (PCI:0000:cb:00): 94, pid=7, Contained: SM (0x1)"),
    ("DeviceBroken", "Xid 74 on GPU 3"),
    ("DeviceBroken", "Xid 154 GPU recovery action changed from 0x0 (None) to 0x1 (Reset Required)"),
    ("DeviceError", "Xid 154 GPU recovery action changed from 0x1 (Drain P2P) to 0x0 (None)"),
    ("DeviceError", "NVRM: Xid (PCI:0000:cb:00): 63, pid=7, Row Remapper: new row marked"),
    ("DeviceError", "NVRM: Xid (PCI:0000:cb:00): 31, pid=7, MMU Fault"),
    ("DeviceError", "NVRM: Xid (PCI:0000:cb:00): 13, Graphics SM Warp Exception"),
    ("DeviceError", "CUDA error: an illegal memory access was encountered"),
    ("DeviceError", "CUDA error: device-side assert triggered"),
    (
        "CollectiveTimeout",
        "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE)",
    ),
    ("CollectiveTimeout", "Timed out waiting 1800000ms for recv operation to complete"),
    ("DeviceError", "terminate called: CUDA error: cudaErrorLaunchFailure"),
    ("DeviceMemory", "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity"),
    ("PeerLost", "[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.1]:1"),
    ("PeerLost", "NCCL error: remote process exited or there was a network error"),
    ("WorkerError", "KeyError: 'loss'"),
]
ROWS += [
    (
        name,
        Evidence(WORKER_EXIT, exit_code=1, message=message, symptom=symptoms.symptom(message)),
        next(row.level for row in faults.TABLE if row.name == name),
        next(row.budget for row in faults.TABLE if row.name == name),
    )
    for name, message in MESSAGES
]
DOCS = Path(__file__).parents[2] / "docs" / "failure-handling.md"


@pytest.mark.parametrize(("name", "seen", "level", "budget"), ROWS)
def test_fault_seen_as_evidence_has_class_level_and_budget(name, seen, level, budget):
    row = faults.fault(seen).row
    assert (row.name, row.level, row.budget) == (name, level, budget)


def test_rows_cover_the_whole_table():
    assert {name for name, *_ in ROWS} == {row.name for row in faults.TABLE}


def test_table_of_faults_in_the_docs_is_the_codes():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\w+) \| (\w+) \|[^|]*\|$", DOCS.read_text(), re.M)
    assert rows == [(row.name, row.level, row.budget) for row in faults.TABLE]


def test_classes_that_blame_a_node_in_the_docs_are_the_codes():
    page = DOCS.read_text()
    for words, blame in (("at once", "AtOnce"), ("again and again", "Repeated")):
        (listed,) = re.findall(rf"^\| {words} \| (.*) \|$", page, re.M)
        named = {row.name for row in faults.TABLE if row.blames_node == blame}
        assert set(re.findall(r"`(\w+)`", listed)) == named


def test_xid_numbers_in_the_docs_are_the_codes():
    (listed,) = re.findall(r"XID numbers ([\d, ]+)", DOCS.read_text())
    assert {int(number) for number in listed.split(", ")} == set(symptoms.HARDWARE_XIDS)


def test_cause_on_an_unhealthy_node_has_the_nodes_words():
    seen = Evidence(WORKER_EXIT, exit_code=1, node="n2", node_problem="GPUMissing: 7 of 8")
    expected = "a worker failed on an unhealthy node with exit code 1 (node n2); the node says"
    assert faults.fault(seen).cause == f"{expected} GPUMissing: 7 of 8"


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("GpuNvlinkWatch", "True", "GpuNvlinkWatch: broken"),
        ("GpuNvlinkWatch", "False", None),
        ("SysLogsXIDError", "True", "SysLogsXIDError: broken"),
        ("XIDHWErrors", "True", "XIDHWErrors: broken"),
        ("NebiusGPUError", "Unknown", None),
        ("AcceleratedHardwareReady", "False", "AcceleratedHardwareReady: broken"),
        ("AcceleratedHardwareReady", "True", None),
        ("ReadonlyFilesystem", "True", "ReadonlyFilesystem: broken"),
        ("MemoryPressure", "True", None),
        ("Ready", "False", None),
    ],
)
def test_node_condition_of_a_health_daemon_is_a_problem_or_not(kind, status, expected):
    entry = {"type": kind, "status": status, "reason": "R", "message": "broken"}
    assert node_facts.problem({"status": {"conditions": [entry]}}) == expected


def test_rows_that_stop_a_run_name_a_stopped_state_and_a_remedy():
    for row in faults.TABLE:
        if row.level == "Stop":
            assert row.state in conditions.STOPPED
            assert row.remedy


def test_cause_names_what_where_and_the_programs_own_words():
    seen = Evidence(
        WORKER_EXIT, exit_code=1, message="ValueError: boom", rank=3, pod="demo-1", node="n2"
    )
    expected = "a worker failed with exit code 1 (rank 3, pod demo-1, node n2): ValueError: boom"
    assert faults.fault(seen).cause == expected


def test_cause_of_a_host_out_of_memory_names_the_limit():
    seen = Evidence(WORKER_EXIT, signal=9, out_of_memory=True, pod="demo-1", memory_limit="8Gi")
    expected = "the pod's memory limit was exceeded by SIGKILL (pod demo-1, limit 8Gi)"
    assert faults.fault(seen).cause == expected


def test_cause_of_an_unknown_signal_gives_its_number():
    assert "signal 99" in faults.fault(Evidence(WORKER_EXIT, signal=99)).cause
