"""`pretrain faults`: the faults that can be injected into a run that allows it, and injecting one.

    pretrain faults list
    pretrain faults inject RUN worker-sigkill --rank 3
    pretrain faults inject RUN node-power-off --command 'bmc {target} power-{action}'

Everything is done in the user's own name: pods by exec, deletion and eviction; nodes and the run by
patches; what no API can do by --command. What must be undone later is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pretrain_llm.contract import codec, environment
from pretrain_llm.contract import injection as in_pod
from pretrain_llm.contract.status import StatusDocument

from .. import api, injection, names, pod_facts
from ..cluster import Cluster
from ..injection import InjectionError, Kind, Target
from ..manifests.pods import MAIN_CONTAINER
from ..observed import KubernetesObject
from ..times import timestamp

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_LOOK_SECONDS = 0.1
_LOOKS = 300  # more than enough for a pod whose processes are killed
Find = Callable[[Cluster, argparse.Namespace], Awaitable[KubernetesObject]]


def register(commands: Commands, common: argparse.ArgumentParser, find: Find) -> None:
    """Adds the command; `find` gets the run that the options name, or says that it is not there."""
    group = commands.add_parser("faults", help="break a run on purpose, where it allows that")
    subcommands = group.add_subparsers(required=True, metavar="COMMAND")
    one = subcommands.add_parser("list", help="kinds, and what each is expected to come to")
    one.set_defaults(offline=show)

    one = subcommands.add_parser("inject", parents=[common], help="one fault, now")
    one.add_argument("kind", metavar="KIND", help="see `pretrain faults list`")
    one.add_argument("--rank", type=int, help="worker (default: the first of the last node)")
    one.add_argument("--pod", help="training pod of the round")
    one.add_argument("--node", help="the training pod of the round on this node")
    one.add_argument("--seconds", type=float, default=in_pod.DEFAULT_SECONDS, help="of slow-rank")
    one.add_argument("--steps", type=int, default=in_pod.DEFAULT_STEPS, help="of slow-rank")
    one.add_argument(
        "--command",
        dest="template",
        metavar="TEMPLATE",
        help="does what no API can: {action} (off, reboot, partition, stop) to {target}",
    )
    one.add_argument("--operator-namespace", default="pretrain-system", help="of operator-killed")

    async def command(cluster: Cluster, options: argparse.Namespace) -> int:
        return await inject(cluster, options, await find(cluster, options))

    one.set_defaults(command=command)


def show(_options: argparse.Namespace) -> int:
    table = Table(box=None)
    table.add_column("kind", no_wrap=True)
    table.add_column("what is done")
    table.add_column("what it is expected to come to")
    for kind in injection.TABLE:
        needs = ", by --command" if kind.needs_command else ""
        table.add_row(kind.name, f"{kind.words}{needs}", _expectation(kind))
    Console().print(table)
    return 0


def _expectation(kind: Kind) -> str:
    row = kind.row
    fault = f"{row.name}, {row.level}, charged to {row.budget}" if row else "no fault of the run"
    return "; ".join(filter(None, (fault, kind.outcome)))


async def inject(cluster: Cluster, options: argparse.Namespace, run: KubernetesObject) -> int:
    """Raises InjectionError, ApiError."""
    kind = injection.kind(options.kind)
    _check_allowed(run)
    if kind.needs_command and not options.template:
        raise InjectionError(f"{kind.name} needs --command: no API can do it")
    targets: tuple[Target, ...] = ()
    if kind.needs_target:
        targets = await _targets(cluster, options, run, kind)
    for action in kind.actions:
        await carry_out(cluster, options, action, targets)
    print(f"expected: {_expectation(kind)}")
    for target in targets if kind.undo else ():
        print(f"undo with: {_undo(kind, options, target)}")
    if kind.undo and not targets:
        print(f"undo with: {_undo(kind, options)}")
    return 0


def _check_allowed(run: KubernetesObject) -> None:
    if run["spec"].get("recovery", {}).get("faultInjection") is not True:
        raise InjectionError(
            f"{injection.FIELD} of {run['metadata']['name']} is false: set it to true to allow"
            " injected faults; the run saves and goes on in a new attempt"
        )


async def _targets(
    cluster: Cluster, options: argparse.Namespace, run: KubernetesObject, kind: Kind
) -> tuple[Target, ...]:
    """Of the round as its coordinator tells it."""
    port = environment.COORDINATOR_HTTP_PORT
    service = f"{names.coordinator(options.run)}:{port}"
    document = await cluster.through_service(options.namespace, service, "/status")
    return injection.targets(
        codec.decode(StatusDocument, document),
        run["spec"]["nodes"].get("devicesPerNode", 1),
        count=kind.num_nodes,
        rank=options.rank,
        pod=options.pod,
        node=options.node,
    )


async def carry_out(
    cluster: Cluster,
    options: argparse.Namespace,
    action: injection.Action,
    targets: Sequence[Target],
) -> None:
    match action:
        case injection.DeletePods():
            await _delete_pods(cluster, options, action)
        case injection.EditSpec(patch):
            metadata = {"name": options.run, "namespace": options.namespace}
            await cluster.patch({"kind": api.KIND, "metadata": metadata, "spec": patch})
            print(f"edited spec of {options.run}: {patch}")
        case injection.Command(verb, target) if "{node}" not in target:
            await _run_command(options.template, verb, target)
        case _:
            await asyncio.gather(*(_strike(cluster, options, action, one) for one in targets))


async def _strike(
    cluster: Cluster, options: argparse.Namespace, action: injection.Action, target: Target
) -> None:
    """One action on one target."""
    namespace = options.namespace
    match action:
        case injection.InPod(kind):
            command = _in_pod_command(kind, options, target)
            said = await cluster.execute(namespace, target.pod, MAIN_CONTAINER, command)
            print(f"{target.pod}: {said.strip()}")
        case injection.DeletePod(grace_seconds):
            await cluster.delete("Pod", namespace, target.pod, grace_seconds=grace_seconds)
            print(f"deleted pod {target.pod}")
        case injection.AwaitEnd():
            await _await_end(cluster, namespace, target.pod)
        case injection.EvictPod():
            await cluster.evict(namespace, target.pod)
            print(f"evicted pod {target.pod}")
        case injection.MarkPod(reason, message):
            marked = {"kind": "Pod", "metadata": {"name": target.pod, "namespace": namespace}}
            await cluster.patch_status(
                marked | _condition(type="DisruptionTarget", reason=reason, message=message)
            )
            print(f"marked pod {target.pod}: {reason}")
        case injection.Cordon():
            await cluster.patch(_node(target) | {"spec": {"unschedulable": True}})
            print(f"cordoned node {target.node}")
        case injection.NodeCondition(kind, message):
            condition = _condition(type=kind, reason="Injected", message=message)
            await cluster.patch_status(_node(target) | condition)
            print(f"set condition {kind} of node {target.node}")
        case injection.Command(verb, template):
            name = injection.filled(template, node=target.node)
            await _run_command(options.template, verb, name)


async def _await_end(cluster: Cluster, namespace: str, name: str) -> None:
    for _ in range(_LOOKS):
        pod = await cluster.get("Pod", namespace, name)
        if pod is None or not pod_facts.is_live(pod):
            return
        await asyncio.sleep(_LOOK_SECONDS)
    raise InjectionError(f"pod {name} has not ended within {_LOOKS * _LOOK_SECONDS:g} s")


def _in_pod_command(kind: str, options: argparse.Namespace, target: Target) -> list[str]:
    return [
        *in_pod.PROGRAM,
        kind,
        f"--rank={target.rank}",
        f"--seconds={options.seconds}",
        f"--steps={options.steps}",
    ]


def _node(target: Target) -> dict[str, Any]:
    return {"kind": "Node", "metadata": {"name": target.node}}


def _condition(**condition: str) -> dict[str, Any]:
    """With a time: the disruption controller takes back a DisruptionTarget of over two minutes."""
    since = timestamp(time.time())
    return {
        "status": {"conditions": [{**condition, "status": "True", "lastTransitionTime": since}]}
    }


async def _delete_pods(
    cluster: Cluster, options: argparse.Namespace, action: injection.DeletePods
) -> None:
    namespace = options.operator_namespace if action.is_of_operator else options.namespace
    selector = injection.filled(action.selector, run=options.run)
    pods = (await cluster.list("Pod", namespace, label_selector=selector)).items
    if not pods:
        where = "; name its namespace in --operator-namespace" if action.is_of_operator else ""
        raise InjectionError(f"no pod in {namespace} has the labels {selector}{where}")
    for pod in pods:
        name = pod["metadata"]["name"]
        await cluster.delete("Pod", namespace, name, grace_seconds=0)
        print(f"deleted pod {name}")


async def _run_command(template: str, action: str, target: str) -> None:
    """Without a shell: what is filled in cannot be anything but an argument."""
    parts = [injection.filled(part, action=action, target=target) for part in shlex.split(template)]
    process = await asyncio.create_subprocess_exec(*parts)
    if code := await process.wait():
        raise InjectionError(f"exit code {code} of: {shlex.join(parts)}")
    print(f"ran: {shlex.join(parts)}")


def _undo(kind: Kind, options: argparse.Namespace, target: Target | None = None) -> str:
    values = {"run": options.run, "namespace": options.namespace}
    return injection.filled(kind.undo, **values, node=target.node if target else "")
