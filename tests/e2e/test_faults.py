"""Each kind of fault, injected into one run on a cluster: class, level and charge as expected.

`make test-e2e` runs the kinds of IN_CI, `make test-faults` all of them. The tests share one run,
and each leaves it stepping with all of its pods.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hack.demo import place, scenario
from hack.demo.kube import StepError, wait_for
from pretrain_llm.contract import codec
from pretrain_llm.contract.status import AgentStatus, StatusDocument
from pretrain_operator import injection

from .test_main_job import coordinator_of, move, pods_of, removed, started, variant

IN_CI = ("xid-on-stderr", "nan-loss", "host-oom", "agent-killed")  # what takes 3 minutes
SOAKED = ("pod-force-deleted", "coordinator-killed", "node-reboot")
SEED = int(os.environ.get("SEED", "1"))
CONTROL_NODE = "node-1"  # has the operator and the coordinator
OTHER_NODES = ("node-2", "node-3")
RECOVERED_SECONDS = 120.0
API_SERVER_DOWN_SECONDS = 30.0
OUTLIVED_STEPS = 30  # more seconds than the operator gives a node that does not answer
BUDGET = 1000
SPEC: dict[str, Any] = {
    "training": {"steps": 1_000_000, "wandb": None},
    "checkpoint": {"interval": 10, "keepLatest": 4},
    "recovery": {
        "faultInjection": True,
        "maxInfrastructureFaults": BUDGET,
        "maxApplicationFaults": BUDGET,
        "excludeNodeAfter": 0,
        "stall": {"quietSeconds": 60},
    },
    "postTraining": None,
    "serving": None,
}
NODES = {
    "count": 2,
    "spares": 1,
    "template": {
        "resources": {"requests": {"cpu": "300m", "memory": "1Gi"}, "limits": {"memory": "3Gi"}}
    },
}


class Struck:
    """The run, and the command that breaks it."""

    def __init__(self, where: place.Place, watch: scenario.RunWatch) -> None:
        assert where.cluster
        self.where, self.watch, self.cluster = where, watch, where.cluster
        self.edits = 0

    def document(self) -> StatusDocument:
        """The coordinator's own."""
        service = f"services/{self.watch.name}-coordinator:8080/proxy/status"
        text = self.where.kube.raw(f"/api/v1/namespaces/{self.watch.namespace}/{service}")
        return codec.from_json(StatusDocument, text)

    def members(self) -> list[AgentStatus]:
        ranked = [agent for agent in self.document().agents if agent.rank is not None]
        return sorted(ranked, key=lambda agent: agent.rank or 0)

    def until_whole(self) -> scenario.Object:
        """Stepping past its last incident, with a pod of each slot in the coordinator's eyes."""

        def is_whole(run: scenario.Object) -> bool:
            if scenario.condition(run, "Succeeded").get("reason") != "Training":
                return False
            try:
                document = self.document()
            except StepError:  # the coordinator starts
                return False
            live = [agent for agent in document.agents if agent.state in ("Running", "Waiting")]
            recent = [agent for agent in live if document.time - agent.last_seen < 2]
            return len(recent) == 3 and not document.broken

        return self.watch.until("the run to be whole", is_whole, RECOVERED_SECONDS)

    def inject(self, kind: str, *options: str) -> list[str]:
        """What `pretrain faults inject` prints."""
        command = [sys.executable, "-m", "pretrain_operator.cli", "faults", "inject",
                   self.watch.name, kind, f"--namespace={self.watch.namespace}",
                   f"--kubeconfig={self.where.kube.kubeconfig}", *options]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        print(done.stdout)
        return done.stdout.splitlines()

    def incidents_after(self, before: scenario.Object, count: int = 1) -> list[dict[str, Any]]:
        """The new ones of a run that has recovered from them."""

        def is_over(run: scenario.Object) -> bool:
            found = new_incidents(run, before)
            return len(found) >= count and found[-1].get("firstStepSeconds") is not None

        return new_incidents(self.watch.until("the recovery", is_over, RECOVERED_SECONDS), before)

    def until_told(self, fault_class: str, before: scenario.Object) -> None:
        """That is the class of the newest incident, a new one."""

        def is_told(run: scenario.Object) -> bool:
            return fault_class in (item["class"] for item in new_incidents(run, before))

        self.watch.until(f"an incident {fault_class}", is_told, RECOVERED_SECONDS)

    def until_stopped(self, state: str) -> scenario.Object:
        def look() -> scenario.Object | None:
            run = self.watch.object()
            return run if scenario.condition(run, "Succeeded").get("reason") == state else None

        try:
            return wait_for(f"the run to be {state}", look, timeout_seconds=RECOVERED_SECONDS)
        except StepError as error:
            told = incidents(self.watch.object())[-3:]
            raise AssertionError(f"{error}; its newest incidents: {json.dumps(told)}") from None

    def go_on(self) -> None:
        """Any change of the spec; returns when the operator has seen it."""
        self.edits += 1
        self.watch.patch({"recovery": {"maxApplicationFaults": BUDGET + self.edits}})

        def look() -> bool | None:
            summary = scenario.condition(self.watch.object(), "Succeeded")
            return True if summary["status"] != "False" else None

        wait_for("the run to go on", look, timeout_seconds=RECOVERED_SECONDS)

    def undo(self, said: list[str]) -> None:
        """What the command has told to do."""
        for line in said:
            if line.startswith("undo with: kubectl "):
                self.where.kube.run(*shlex.split(line.removeprefix("undo with: kubectl ")))

    def cluster_command(self, what: str) -> str:
        """Of the local cluster, for --command."""
        folder = self.cluster.directory
        command = f"-m tests.cluster {what} --name={self.cluster.name} --dir={folder}"
        return f"{sys.executable} {command}"

    def gather_control(self) -> None:
        """Operator and coordinator on one node: those of a new attempt may be anywhere."""
        operator = "app.kubernetes.io/name=pretrain-operator"
        move(self.where, scenario.SYSTEM_NAMESPACE, operator, CONTROL_NODE)
        move(self.where, self.watch.namespace, coordinator_of(self.watch), CONTROL_NODE)

    def pod_uids(self) -> set[str]:
        """Of agents and coordinator."""
        live = (pod for pod in pods_of(self.watch) if pod["status"]["phase"] == "Running")
        return {pod["metadata"]["uid"] for pod in live}

    def outlive(self, node: str) -> None:
        """Steps on for longer than the operator gives a node that is NotReady."""

        def is_silent() -> bool | None:
            return None if self.cluster.node(node).is_ready() else True

        wait_for(f"{node} to be NotReady", is_silent, timeout_seconds=RECOVERED_SECONDS)
        step = scenario.current_step(self.watch.object())
        self.watch.until_step(step + OUTLIVED_STEPS)

    def node_apart(self) -> str:
        """Of a member, without operator and coordinator."""
        return next(agent.node for agent in self.members() if agent.node != CONTROL_NODE)

    def leave_control_node(self) -> None:
        """So that both members are on other nodes: the spare takes over."""
        for agent in self.members():
            if agent.node == CONTROL_NODE:
                before = self.watch.object()
                self.inject("agent-killed", f"--pod={agent.name}")
                self.incidents_after(before)
                self.until_whole()


def incidents(run: scenario.Object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run["status"].get("incidents", [])
    return found


def new_incidents(run: scenario.Object, before: scenario.Object) -> list[dict[str, Any]]:
    """The status has the newest only, so that their number says nothing."""
    known = {(item["attempt"], item["round"]) for item in incidents(before)}
    return [item for item in incidents(run) if (item["attempt"], item["round"]) not in known]


@pytest.fixture(scope="module")
def run(where: place.Place) -> Iterator[Struck]:
    """Operator and coordinator are on one node, so that the others can be struck."""
    where.kube.run("cordon", *OTHER_NODES)
    selector = "app.kubernetes.io/name=pretrain-operator"
    where.kube.run("delete", "pod", "-n", scenario.SYSTEM_NAMESPACE, "-l", selector)
    nodes = {**scenario.manifest(scenario.RECIPE)["spec"]["nodes"], **NODES}
    watch = started(where, variant("faults", nodes=nodes, **SPEC))

    def coordinator_placed() -> bool | None:
        selector = coordinator_of(watch)
        pods = where.kube.get("pods", "-n", watch.namespace, "-l", selector)["items"]
        return any(pod["spec"].get("nodeName") for pod in pods) or None

    wait_for("the coordinator's place", coordinator_placed, timeout_seconds=180)
    where.kube.run("uncordon", *OTHER_NODES)
    struck = Struck(where, watch)
    watch.until_step(25)
    yield struck
    removed(watch)


def kinds() -> list[Any]:
    return [
        pytest.param(
            kind, marks=pytest.mark.e2e if kind.name in IN_CI else pytest.mark.faults, id=kind.name
        )
        for kind in injection.TABLE
    ]


@pytest.mark.parametrize("kind", kinds())
def test_kind_comes_to_what_is_expected(run: Struck, kind: injection.Kind) -> None:
    before = run.until_whole()
    PARTICULAR.get(kind.name, strike)(run, kind, before)
    run.until_whole()


@pytest.mark.e2e
def test_seeded_faults_of_pods_and_nodes_leave_every_loss_as_it_was(run: Struck) -> None:
    """The short form of `make soak` on a cluster: steps that were lost come to the same again.

    After all others, because the coordinator may be on any node then.
    """
    run.until_whole()
    known = run.document().replay  # the coordinator's own: the status remembers other attempts too
    for name in random.Random(SEED).sample(SOAKED, len(SOAKED)):
        before = run.until_whole()
        run.inject(name, *node_options(run, name))
        run.watch.until_step(scenario.current_step(before) + 15)  # past all that it lost
    run.cluster.await_ready()
    run.until_whole()
    replay = run.document().replay
    assert replay.steps > known.steps
    assert replay.max_loss_difference == known.max_loss_difference


def node_options(run: Struck, name: str) -> tuple[str, ...]:
    if not name.startswith("node-"):
        return ()
    command = run.cluster_command("node {action} {target}")
    return (f"--node={run.node_apart()}", f"--command={command}")


def strike(run: Struck, kind: injection.Kind, before: scenario.Object, *options: str) -> None:
    """One fault, one incident, and what was left behind is undone."""
    if kind.name.startswith("node-"):
        options = (*options, f"--node={run.node_apart()}")
    said = run.inject(kind.name, *options)
    try:
        if kind.row is None:
            run.watch.until_step(scenario.current_step(before) + 10)
            assert incidents(run.watch.object()) == incidents(before)
        elif kind.row.level == "Stop":
            after = run.until_stopped(kind.row.state)
            expect(kind, incidents(after)[-1])
            run.go_on()
        else:
            expect(kind, run.incidents_after(before)[0])
    finally:
        run.undo(said)


def expect(kind: injection.Kind, incident: dict[str, Any]) -> None:
    assert kind.row
    print(json.dumps(incident))
    found = (incident["class"], incident["level"], incident["budget"])
    assert found == (kind.row.name, kind.row.level, kind.row.budget), incident["cause"]


def strike_before_a_save(run: Struck, kind: injection.Kind, before: scenario.Object) -> None:
    """A slow rank or a spike must not be in the checkpoints of what comes next: a worker dies."""
    strike(run, kind, before)
    known = run.watch.object()
    run.inject("worker-sigkill")
    run.incidents_after(known)


def damage(run: Struck, kind: injection.Kind, before: scenario.Object) -> None:
    strike(run, kind, before)
    assert incidents(run.watch.object())[-1]["stepsLost"] >= 10


def cut_power(run: Struck, kind: injection.Kind, before: scenario.Object) -> None:
    """Without operator and coordinator on the node; the power comes back."""
    run.gather_control()
    run.until_whole()
    run.leave_control_node()
    before = run.until_whole()
    nodes = [agent.node for agent in run.members()][-kind.num_nodes :]
    command = run.cluster_command("node {action} {target}")
    run.inject(kind.name, f"--command={command}")
    try:
        if kind.num_nodes == 1:  # the spare takes over
            expect(kind, run.incidents_after(before)[0])
        else:  # nobody takes over, and for a while only the agents are known to be gone
            run.until_told("NodeLost", before)
    finally:
        for node in nodes:
            run.cluster.node(node).power_on()
    run.cluster.await_ready()
    if kind.num_nodes > 1:
        expect(kind, run.incidents_after(before)[0])


def reboot(run: Struck, kind: injection.Kind, _before: scenario.Object) -> None:
    run.gather_control()
    before = run.until_whole()
    strike(run, kind, before, f"--command={run.cluster_command('node {action} {target}')}")
    run.cluster.await_ready()


def part(run: Struck, kind: injection.Kind, _before: scenario.Object) -> None:
    run.gather_control()
    before = run.until_whole()
    node = run.node_apart()
    command = run.cluster_command("node {action} {target}")
    run.inject(kind.name, f"--node={node}", f"--command={command}")
    try:
        expect(kind, run.incidents_after(before)[0])
    finally:
        run.cluster.node(node).heal()


def silence(run: Struck, kind: injection.Kind, _before: scenario.Object) -> None:
    """A node of a member, then the coordinator's."""
    run.gather_control()
    before = run.until_whole()
    pods = run.pod_uids()
    command = run.cluster_command("node {action} {target}")
    for node in (run.node_apart(), CONTROL_NODE):
        run.inject(kind.name, f"--node={node}", f"--command={command}")
        try:
            run.outlive(node)
        finally:
            run.cluster.node(node).heal()
        run.cluster.await_ready()
    run.until_whole()
    assert run.pod_uids() == pods
    assert incidents(run.watch.object()) == incidents(before)


def stop_api_server(run: Struck, kind: injection.Kind, before: scenario.Object) -> None:
    """Nodes may be NotReady for half a minute after it is back: nobody is taken for lost."""
    pods, step = run.pod_uids(), run.document().progress
    run.inject(kind.name, f"--command={run.cluster_command('api-server {action}')}")
    time.sleep(API_SERVER_DOWN_SECONDS)  # the fault itself
    run.cluster.control_plane.restart("kube-apiserver")
    after = wait_for("an answer", run.document, timeout_seconds=60).progress
    assert step
    assert after
    assert after.step >= step.step + 10, "workers stepped on meanwhile"
    run.watch.until_step(after.step + OUTLIVED_STEPS)
    run.cluster.await_ready()
    run.until_whole()
    assert run.pod_uids() == pods
    assert incidents(run.watch.object()) == incidents(before)


def out_of_memory_at_start(run: Struck, kind: injection.Kind, _before: scenario.Object) -> None:
    run.inject(kind.name)
    after = run.until_stopped("OutOfMemory")
    expect(kind, incidents(after)[-1])
    assert incidents(after)[-2]["class"] == "WorkerKilled"
    run.go_on()


def suspend(run: Struck, kind: injection.Kind, before: scenario.Object) -> None:
    said = run.inject(kind.name)
    suspended = run.until_stopped("Suspended")
    run.undo(said)
    expect(kind, new_incidents(suspended, before)[0])


def misconfigure(run: Struck, kind: injection.Kind, before: scenario.Object) -> None:
    run.inject(kind.name)
    failed = run.until_stopped("ImagePullFailed")
    assert failed["status"]["attempt"] == before["status"]["attempt"] + 1
    run.watch.patch({"nodes": {"template": {"image": None}}})
    run.until_whole()
    charged = [item for item in incidents(run.watch.object()) if item["budget"] != "None"]
    assert charged == [item for item in incidents(before) if item["budget"] != "None"]


PARTICULAR = {
    "loss-spike": strike_before_a_save,
    "slow-rank": strike_before_a_save,
    "checkpoint-truncated": damage,
    "checkpoint-bit-flipped": damage,
    "checkpoint-manifest-missing": damage,
    "device-oom-at-start": out_of_memory_at_start,
    "node-power-off": cut_power,
    "node-silent": silence,
    "two-nodes-power-off": cut_power,
    "node-reboot": reboot,
    "node-partitioned": part,
    "api-server-down": stop_api_server,
    "run-suspended": suspend,
    "wrong-config": misconfigure,
}
