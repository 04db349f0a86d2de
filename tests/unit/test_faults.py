"""A row for each row of the fault table: what is seen, its class, what cures it, who pays."""

from __future__ import annotations

import signal

import pytest

from pretrain_llm.contract import exit_codes
from pretrain_llm.contract.status import (
    AGENT_RESTARTED,
    LEASE_EXPIRED,
    STOP_REQUESTED,
    WORKER_EXIT,
)
from pretrain_operator import conditions, faults
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
    ("AgentLost", Evidence(LEASE_EXPIRED), "NodeReplacement", "Infrastructure"),
    ("AgentLost", Evidence(AGENT_RESTARTED), "NodeReplacement", "Infrastructure"),
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


@pytest.mark.parametrize(("name", "seen", "level", "budget"), ROWS)
def test_fault_seen_as_evidence_has_class_level_and_budget(name, seen, level, budget):
    row = faults.fault(seen).row
    assert (row.name, row.level, row.budget) == (name, level, budget)


def test_rows_cover_the_whole_table():
    assert {name for name, *_ in ROWS} == {row.name for row in faults.TABLE}


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
