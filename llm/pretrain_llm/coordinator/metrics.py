"""Prometheus families of one status document. Names start with pretrain_run_ and carry units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..contract.protocol import AGENT_STATES
from ..contract.status import EVIDENCE, StatusDocument

_PHASES = ("detect", "reschedule", "restore", "first_step")


class StatusCollector(Collector):
    """Reads the status document anew at every scrape: nothing is counted twice or kept twice."""

    def __init__(self, read_status: Callable[[], StatusDocument]) -> None:
        self._read_status = read_status

    def collect(self) -> Iterable[Metric]:
        return families(self._read_status())


def exposition(read_status: Callable[[], StatusDocument]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(read_status))
    return generate_latest(registry)


def families(status: StatusDocument) -> Iterator[Metric]:
    yield from _round_families(status)
    yield from _progress_families(status)
    yield from _straggler_families(status)
    yield from _incident_families(status)


def _round_families(status: StatusDocument) -> Iterator[Metric]:
    yield _gauge(status, "round", "Number of the newest round", status.round)
    yield _gauge(status, "round_broken", "1 while no round is running", int(status.broken))
    yield _gauge(status, "finished", "1 once every worker has ended with 0", int(status.finished))
    members = sum(agent.rank is not None for agent in status.agents)
    yield _gauge(status, "nodes", "Agents in the newest round", members)
    if status.wanted_nodes is not None:
        yield _gauge(status, "wanted_nodes", "Agents of a whole round", status.wanted_nodes)
    agents = GaugeMetricFamily(
        "pretrain_run_agents", "Agents by state", labels=("run", "attempt", "state")
    )
    by_state = Counter(agent.state for agent in status.agents)
    for state in AGENT_STATES:
        agents.add_metric((*_labels(status), state), by_state[state])
    yield agents


def _progress_families(status: StatusDocument) -> Iterator[Metric]:
    if step := status.progress:
        rate = step.tokens_per_second
        yield _gauge(status, "step", "Newest optimiser step", step.step)
        yield _gauge(status, "steps", "Optimiser steps of the whole run", step.total_steps)
        yield _gauge(status, "loss_nats", "Training loss a token", step.loss)
        yield _gauge(status, "trained_tokens", "Tokens trained so far", step.tokens)
        yield _gauge(status, "tokens_per_second", "Training throughput of the world", rate)
        yield _gauge(status, "step_seconds", "Median time of a step", step.step_seconds)
        yield _gauge(status, "last_step_timestamp_seconds", "When it ended", step.time)
        if step.mfu is not None:
            yield _gauge(status, "mfu_ratio", "Model FLOPs utilisation", step.mfu)
    if saved := status.latest_checkpoint:
        yield _gauge(status, "checkpoint_step", "Step of the newest checkpoint", saved.step)
        yield _gauge(status, "checkpoint_bytes", "Size of the newest checkpoint", saved.bytes)
        stall = saved.stall_seconds
        yield _gauge(status, "checkpoint_stall_seconds", "Stall of the newest checkpoint", stall)
    if held := status.memory_checkpoint:
        stall = held.stall_seconds
        yield _gauge(status, "memory_checkpoint_step", "Newest that has its copies", held.step)
        yield _gauge(status, "memory_checkpoint_bytes", "Its size, without copies", held.bytes)
        yield _gauge(status, "memory_checkpoint_stall_seconds", "Stall of the newest", stall)
    yield from _cadence_families(status)
    skipped = status.skipped.ranges
    yield _gauge(status, "rollbacks", "Times that a bad loss was rolled back", len(skipped))
    replay = status.replay
    yield _gauge(status, "replayed_steps", "Steps that were run again", replay.steps)
    difference = replay.max_loss_difference
    yield _gauge(status, "replay_loss_difference_nats", "Largest change of a loss", difference)


def _cadence_families(status: StatusDocument) -> Iterator[Metric]:
    cadence = status.cadence
    yield _gauge(status, "checkpoint_interval_steps", "Between two saves", cadence.interval_steps)
    mtbf, count = cadence.mtbf_seconds, cadence.interruptions
    yield _gauge(status, "mtbf_seconds", "Between interruptions, as reckoned with", mtbf)
    yield _gauge(status, "interruptions", "That broke a round unasked", count)
    total = status.stall_seconds
    yield _gauge(status, "checkpoint_stall_sum_seconds", "Stall of all saves of the attempt", total)
    if cadence.costs:
        newest = cadence.costs[-1]
        text = "The 10 steps after the newest measured save took longer by so much together"
        yield _gauge(status, "checkpoint_dip_seconds", text, newest.dip_seconds)
        text = "The newest measured save, until its manifest was written"
        yield _gauge(status, "checkpoint_save_seconds", text, newest.save_seconds)
    if (share := cadence.stall_share) is not None:
        text = "Stall of a save, of the time between two"
        yield _gauge(status, "checkpoint_stall_ratio", text, share)


def _straggler_families(status: StatusDocument) -> Iterator[Metric]:
    scores = GaugeMetricFamily(
        "pretrain_run_straggler_zscore",
        "How far a slow rank's own time lies above the others', in robust sigmas",
        labels=("run", "attempt", "rank", "node"),
    )
    for slow in status.stragglers:
        scores.add_metric((*_labels(status), str(slow.rank), slow.node), slow.z_score)
    yield scores


def _incident_families(status: StatusDocument) -> Iterator[Metric]:
    incidents = GaugeMetricFamily(
        "pretrain_run_incidents",
        "Broken rounds that this coordinator still lists",
        labels=("run", "attempt", "evidence"),
    )
    by_evidence = Counter(incident.evidence for incident in status.incidents)
    for evidence in EVIDENCE:
        incidents.add_metric((*_labels(status), evidence), by_evidence[evidence])
    yield incidents
    recovery = GaugeMetricFamily(
        "pretrain_run_recovery_seconds",
        "Durations of the newest incident",
        labels=("run", "attempt", "phase"),
    )
    for incident in status.incidents[-1:]:
        for phase in _PHASES:
            if (seconds := getattr(incident, f"{phase}_seconds")) is not None:
                recovery.add_metric((*_labels(status), phase), seconds)
    yield recovery


def _gauge(status: StatusDocument, name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(f"pretrain_run_{name}", text, labels=("run", "attempt"))
    family.add_metric(_labels(status), value)
    return family


def _labels(status: StatusDocument) -> tuple[str, str]:
    return (status.run, str(status.attempt))
