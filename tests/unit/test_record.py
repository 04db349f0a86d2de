"""The record of incidents: each is counted once, by its last class, whatever is forgotten."""

from __future__ import annotations

from itertools import pairwise

from prometheus_client import generate_latest

from pretrain_operator import conditions, record
from pretrain_operator.api.status import MAX_INCIDENTS, IncidentStatus, RunStatus
from pretrain_operator.cache import RunKey
from pretrain_operator.metrics import Metrics

from .simulation import cluster
from .simulation_faults import kill_worker, power_off_node
from .test_plan_scenarios import settle, started
from .world import World


def entry(number: int, **fields: object) -> IncidentStatus:
    known = {
        "attempt": 1,
        "round": number,
        "time": "t",
        "class": "WorkerKilled",
        "cause": "SIGKILL",
        "budget": "Infrastructure",
        "level": "WorkerRestart",
        "detectSeconds": 0.5,
        "firstStepSeconds": 1.25,
        "stepsLost": 3,
    }
    return IncidentStatus.model_validate({**known, **fields})


def after(*entries: IncidentStatus) -> RunStatus:
    status = RunStatus(attempt=1)
    for item in entries:
        status = record.with_settled(record.with_incident(status, item))
    return status


def test_incident_counts_once_it_is_over():
    open_one = entry(2, firstStepSeconds=None)
    status = after(entry(1), open_one)
    assert record.totals(status).classes == {"WorkerKilled": 1}
    assert record.totals(after(entry(1), open_one, entry(3))).classes == {"WorkerKilled": 3}
    next_attempt = record.with_settled(status.model_copy(update={"attempt": 2}))
    assert record.totals(next_attempt).classes == {"WorkerKilled": 2}
    stopped = conditions.with_state(
        status, conditions.FAULT_BUDGET_SPENT, "m", generation=1, now=0.0
    )
    assert record.totals(record.with_settled(stopped)).classes == {"WorkerKilled": 2}


def test_forgotten_incidents_are_summed_up():
    count = MAX_INCIDENTS + 5
    status = after(*(entry(number) for number in range(count)))
    assert len(status.incidents) == MAX_INCIDENTS
    assert status.forgotten_incidents.classes == {"WorkerKilled": 5}
    totals = record.totals(status)
    assert totals.classes == {"WorkerKilled": count}
    assert totals.steps_lost == 3 * count
    assert totals.phase_seconds["detect"] == 0.5 * count
    assert totals.phase_seconds["first_step"] == 1.25 * count


def test_counters_of_a_run_with_faults_never_fall_and_end_as_the_incidents_say():
    script = [(20, kill_worker), (60, power_off_node)]
    simulation = cluster(World(started().world.body), script=script)
    seen = []
    for _ in range(60):
        settle(simulation)
        seen.append(record.totals(simulation.world.status))
        if conditions.state(simulation.world.status) == conditions.SERVING:
            break
        simulation.tick()
    for earlier, later in pairwise(seen):
        for name, count in earlier.classes.items():
            assert later.classes[name] >= count
        for phase, seconds in earlier.phase_seconds.items():
            assert later.phase_seconds[phase] >= seconds
        assert later.steps_lost >= earlier.steps_lost
    listed = simulation.world.status.incidents
    assert len(listed) >= 2
    assert all(item.settled for item in listed)
    assert sum(seen[-1].classes.values()) == len(listed)
    assert seen[-1].steps_lost == sum(item.steps_lost or 0 for item in listed)


def test_metrics_count_incidents_their_phases_and_lost_steps():
    metrics = Metrics()
    metrics.show(RunKey("llm", "demo"), after(entry(1), entry(2, **{"class": "NodeLost"})))
    text = generate_latest(metrics.registry).decode()
    run = 'namespace="llm",run="demo"'
    assert f'pretrain_run_incidents_total{{class="NodeLost",{run}}} 1.0' in text
    phase = '{namespace="llm",phase="first_step",run="demo"}'
    assert f"pretrain_run_recovery_seconds_total{phase} 2.5" in text
    assert f"pretrain_run_lost_steps_total{{{run}}} 6.0" in text
