"""What may befall a run of the simulation: each a function of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pretrain_llm.contract.reports import FaultReport, QuarantinedReport
from pretrain_llm.contract.status import Incident, Suspicion
from pretrain_operator import names
from pretrain_operator.observed import ObjectKey

from .simulation import TICK_SECONDS, Simulation, node
from .world import changed

SILENT_SECONDS = 15.0  # of a node that was lost, when the simulation comes to know it


def break_round(simulation: Simulation, **parts: Any) -> None:
    document = simulation.world.document
    assert document is not None
    assert document.progress is not None
    incident = Incident(
        round=document.round,
        time=simulation.world.now,
        last_step=document.progress.step,
        detect_seconds=0.1,
        **parts,
    )
    simulation.world.document = replace(
        document, broken=True, incidents=(*document.incidents, incident)
    )


def kill_worker(simulation: Simulation) -> None:
    """SIGKILL to the worker in the first slot."""
    world = simulation.world
    assert world.document is not None
    agent = world.document.agents[0]
    fault = FaultReport(world.document.round, 0, world.now, signal=9)
    break_round(
        simulation,
        evidence="WorkerExit",
        agent=agent.name,
        slot=agent.slot,
        node=agent.node,
        first_fault=fault,
    )


def break_device(simulation: Simulation) -> None:
    """Under the worker in the first slot."""
    world = simulation.world
    assert world.document is not None
    agent = world.document.agents[0]
    fault = FaultReport(
        world.document.round,
        0,
        world.now,
        exit_code=1,
        error_message="CUDA error: uncorrectable ECC error encountered",
    )
    break_round(
        simulation,
        evidence="WorkerExit",
        agent=agent.name,
        slot=agent.slot,
        node=agent.node,
        first_fault=fault,
    )


def hang(simulation: Simulation) -> None:
    """In the last slot, as its stacks say."""
    document = simulation.world.document
    assert document is not None
    agent = document.agents[-1]
    break_round(
        simulation,
        evidence="Stalled",
        agent=agent.name,
        slot=agent.slot,
        node=agent.node,
        suspects=(Suspicion(1, "its process is stopped"),),
    )


def ask_not_to_be_restarted(simulation: Simulation) -> None:
    """A worker ends with NVRx's code; three ticks later, the user changes the spec."""
    document = simulation.world.document
    assert document is not None
    agent = document.agents[0]
    fault = FaultReport(document.round, 0, simulation.world.now, exit_code=93)
    break_round(
        simulation,
        evidence="WorkerExit",
        agent=agent.name,
        slot=agent.slot,
        node=agent.node,
        first_fault=fault,
    )
    simulation.resume_at = simulation.world.now + 3 * TICK_SECONDS


def fail_job(simulation: Simulation) -> None:
    """The Job controller gives the attempt up."""
    world = simulation.world
    job = world.objects[ObjectKey("Job", names.training_job(world.run_name, world.status.attempt))]
    simulation.end_pods(job, 1, "")
    simulation.finish(job, "Failed")


def power_off_node(simulation: Simulation) -> None:
    """Of the last slot: its agent falls silent, and then Kubernetes says so of the node."""
    world = simulation.world
    assert world.document is not None
    *others, agent = world.document.agents
    silenced = replace(agent, last_seen=world.now - SILENT_SECONDS)
    world.document = replace(world.document, agents=(*others, silenced))
    dark = node(agent.node, ready=False, since=world.now - SILENT_SECONDS)
    world.nodes[agent.node] = changed(world.nodes[agent.node], status=dark["status"])
    break_round(
        simulation,
        evidence="LeaseExpired",
        agent=agent.name,
        slot=agent.slot,
        node=agent.node,
    )


def suspend_for_three_ticks(simulation: Simulation) -> None:
    simulation.world.edit(suspend=True)
    simulation.resume_at = simulation.world.now + 3 * TICK_SECONDS


def edit_interval(simulation: Simulation) -> None:
    """Of checkpoints: a new attempt."""
    simulation.world.edit(checkpoint={"interval": 30})


def quarantine_newest(simulation: Simulation) -> None:
    """A worker finds the newest checkpoint damaged."""
    document = simulation.world.document
    assert document is not None
    assert document.latest_checkpoint is not None
    step = document.latest_checkpoint.step
    report = QuarantinedReport(
        step, "step-1/a: checksum differs", f"/ckpt/quarantine/step-{step}", simulation.world.now
    )
    simulation.world.document = replace(document, quarantined=(*document.quarantined, report))


def fail_stage(simulation: Simulation, name: str, exit_code: int, message: str) -> None:
    """The pods of a Job fail, and the Job with them."""
    job = simulation.world.objects[ObjectKey("Job", name)]
    simulation.end_pods(job, exit_code, message)
    simulation.finish(job, "Failed")
