"""What a run that is only training costs: calls to the API server, memory, processor."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from pretrain_operator.settings import Settings
from tests.integration.harness import Api, Coordinators, Operator, eventually
from tests.integration.walk import Walk

MEASURED_SECONDS = 24.0
# Without `list`: all kinds are listed every 10 minutes, once for all runs (see handlers).
VERBS = ("get", "apply", "update", "create", "delete")
CALLS_A_MINUTE = 10.0
RESIDENT_BYTES = 200 * 2**20
CORE_SHARE = 0.01


@pytest.fixture
def walk(operator: Operator, api: Api, coordinators: Coordinators, namespace: str) -> Walk:
    return Walk(api, coordinators, namespace)


def test_training_run_costs_few_calls_little_memory_and_hardly_any_processor(
    walk: Walk, operator: Operator, record_property: pytest.RecordProperty
) -> None:
    # Alone: a restarted operator has forgotten the other tests' runs once these are gone.
    for run in walk.api.list("PretrainRun", ""):
        walk.api.delete("PretrainRun", run["metadata"]["namespace"], run["metadata"]["name"])
    operator.kill()
    operator.start(poll_seconds=Settings().poll_interval_seconds)
    walk.to_training()
    stop = threading.Event()
    threading.Thread(target=_train, args=(walk, stop), daemon=True).start()
    try:
        eventually(lambda: walk.status["training"]["step"] > 100, "progress in the status")
        calls, processor = operator.api_calls(*VERBS), operator.cpu_seconds()
        began = time.monotonic()
        stop.wait(MEASURED_SECONDS)
        minutes = (time.monotonic() - began) / 60
        calls_a_minute = (operator.api_calls(*VERBS) - calls) / minutes
        core_share = (operator.cpu_seconds() - processor) / (minutes * 60)
    finally:
        stop.set()
        resident_bytes = operator.resident_bytes()
        operator.kill()
        operator.start()
    record_property("api_calls_a_minute", calls_a_minute)
    record_property("core_share", core_share)
    record_property("resident_bytes", resident_bytes)
    print(f"{calls_a_minute=:.1f} {core_share=:.4f} {resident_bytes=}")
    assert calls_a_minute <= CALLS_A_MINUTE
    assert core_share < CORE_SHARE
    assert resident_bytes < RESIDENT_BYTES


def _train(walk: Walk, stop: threading.Event) -> None:
    """A step every 0.1 s."""
    for step in itertools.count(101):
        walk.says(step)
        if stop.wait(0.1):
            return
