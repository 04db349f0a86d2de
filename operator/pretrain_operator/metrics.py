"""What the operator tells Prometheus. The only importer of prometheus_client.

Per-run gauges are read from a table at the scrape: a run that is gone leaves no stale series.
"""

from __future__ import annotations

import time
from collections import Counter as Count
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from . import goodput, record
from .api.status import RunStatus
from .cache import RunKey
from .conditions import PENDING, state

_PASS_BUCKETS_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0)


# Name, help, field of the status. Where the field is not set, the run has no such series.
_RUN_GAUGES = (
    ("step", "Last finished step.", "training.step"),
    ("total_steps", "Steps to train.", "training.total_steps"),
    ("loss", "Loss of the last step, nats a token.", "training.loss"),
    ("tokens", "Tokens trained.", "training.tokens"),
    ("tokens_per_second", "Tokens a second, of the whole world.", "training.tokens_per_second"),
    ("nodes", "Node slots in the current round.", "training.nodes"),
    ("attempt", "Number of the training Job.", "attempt"),
    ("restarts", "Incidents of the whole run.", "budgets.total"),
    ("excluded_nodes", "Nodes that the run keeps away from.", "excluded_nodes"),
    ("checkpoint_step", "Step of the newest verified checkpoint.", "checkpoints.latest.step"),
    ("checkpoint_interval_steps", "Between two saves.", "checkpoints.cadence.interval_steps"),
    ("serving_ready_replicas", "vLLM pods that answer.", "serving.ready_replicas"),
)


class Metrics:
    """One registry of its own, so that two operators in one process do not meet."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._runs: dict[RunKey, RunStatus] = {}
        Info("pretrain_operator_build", "Version.", registry=self.registry).info(
            {"version": _version()}
        )
        self._passes = Histogram(
            "pretrain_operator_pass_seconds",
            "Duration of a pass over one run.",
            buckets=_PASS_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._pass_errors = Counter(
            "pretrain_operator_pass_errors", "Passes that failed.", registry=self.registry
        )
        self._calls = Counter(
            "pretrain_operator_api_calls",
            "Requests to the API server, without watches; code 0: no answer.",
            ("verb", "kind", "code"),
            registry=self.registry,
        )
        self._drift = Counter(
            "pretrain_operator_cache_drift",
            "Runs whose objects a full listing showed otherwise than the watches had.",
            registry=self.registry,
        )
        self._excluded_nodes = Gauge(
            "pretrain_operator_excluded_nodes",
            "Nodes that all runs keep away from.",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def serve(self, port: int) -> None:
        """In a thread of its own."""
        start_http_server(port, registry=self.registry)

    def count_call(self, verb: str, kind: str, code: int) -> None:
        self._calls.labels(verb, kind, str(code)).inc()

    def count_drift(self, runs: int) -> None:
        self._drift.inc(runs)

    def show_excluded_nodes(self, nodes: int) -> None:
        self._excluded_nodes.set(nodes)

    @contextmanager
    def timed_pass(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        except Exception:
            self._pass_errors.inc()
            raise
        finally:
            self._passes.observe(time.perf_counter() - began)

    def show(self, run: RunKey, status: RunStatus) -> None:
        self._runs[run] = status

    def forget(self, run: RunKey) -> None:
        self._runs.pop(run, None)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape, in the server's thread."""
        runs = dict(self._runs)
        states = GaugeMetricFamily("pretrain_operator_runs", "Runs by state.", labels=["state"])
        for name, count in Count(map(state, runs.values())).items():
            states.add_metric([name or PENDING], count)
        yield states
        for name, text, path in _RUN_GAUGES:
            family = GaugeMetricFamily(
                f"pretrain_operator_run_{name}", text, labels=["namespace", "run"]
            )
            for key, status in runs.items():
                value = _value(status, path)
                if value is not None:
                    family.add_metric(list(key), value)
            yield family
        yield from _time_families(runs, time.time())
        yield from _incident_families(runs)


def _time_families(runs: Mapping[RunKey, RunStatus], now: float) -> Iterator[Metric]:
    """From the status, so a counter goes on where the operator before this one was."""
    labels = ["namespace", "run"]
    ratio = GaugeMetricFamily(
        "pretrain_run_goodput_ratio", "Productive time of the time since admission.", labels=labels
    )
    productive = CounterMetricFamily(
        "pretrain_run_productive_seconds", "Time of steps made for the first time.", labels=labels
    )
    badput = CounterMetricFamily(
        "pretrain_run_badput_seconds", "All other time up to Trained.", labels=[*labels, "cause"]
    )
    for key, status in runs.items():
        training = goodput.current(status, now)
        if training is None or training.account is None:
            continue
        if training.goodput is not None:
            ratio.add_metric(list(key), training.goodput)
        productive.add_metric(list(key), training.productive_seconds)
        for cause in goodput.CAUSES:
            badput.add_metric([*key, cause], training.badput_seconds.get(cause, 0.0))
    yield from (ratio, productive, badput)


def _incident_families(runs: Mapping[RunKey, RunStatus]) -> Iterator[Metric]:
    labels = ["namespace", "run"]
    incidents = CounterMetricFamily(
        "pretrain_run_incidents", "Incidents that are over.", labels=[*labels, "class"]
    )
    seconds = CounterMetricFamily(
        "pretrain_run_recovery_seconds",
        "From their faults to the next step.",
        labels=[*labels, "phase"],
    )
    lost = CounterMetricFamily("pretrain_run_lost_steps", "Steps to be made again.", labels=labels)
    for key, status in runs.items():
        totals = record.totals(status)
        for name, count in totals.classes.items():
            incidents.add_metric([*key, name], count)
        for phase in record.PHASES:
            seconds.add_metric([*key, phase], totals.phase_seconds.get(phase, 0.0))
        lost.add_metric(list(key), totals.steps_lost)
    yield from (incidents, seconds, lost)


def _value(status: RunStatus, path: str) -> float | None:
    found: Any = status
    for field in path.split("."):
        found = getattr(found, field, None)
    return None if found is None else float(len(found) if isinstance(found, tuple) else found)


def _version() -> str:
    try:
        return metadata.version("pretrain-operator")
    except metadata.PackageNotFoundError:  # run from the source tree
        return "source"
