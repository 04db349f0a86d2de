"""The commands: parse, ask the API server, show. Errors are one line that says what to do."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live

from pretrain_llm.contract.environment import SERVING_PORT

from .. import api, names
from ..cluster import ApiError, Cluster, default_namespace, is_unanswered
from ..injection import InjectionError
from ..observed import KubernetesObject
from .faults import register as register_faults
from .plan import register as register_plan
from .render import json_view, run_status, summary, view
from .simulate import register as register_simulate
from .sweep import register as register_sweep

_WATCH_SECONDS = 2.0
_STAGES = ("data", "coordinator", "training", "export", "postTraining", "serving")


class UsageError(Exception):
    """What the user can put right; the text says how."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 1 with a line on stderr, or the state that `status` found (see there)."""
    options = _parsed(arguments)
    if hasattr(options, "offline"):
        code: int = options.offline(options)
        return code
    if (prepare := getattr(options, "prepare", None)) and not prepare(options):
        return 1
    try:
        return asyncio.run(_run(options))
    except ApiError as error:
        print(f"pretrain: {_advice(error)}", file=sys.stderr)
    except (UsageError, InjectionError) as error:
        print(f"pretrain: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


async def _run(options: argparse.Namespace) -> int:
    cluster = await Cluster.connect(kubeconfig=options.kubeconfig, context=options.context)
    async with cluster:
        options.is_namespace_given = options.namespace is not None
        if not options.is_namespace_given:
            options.namespace = await default_namespace(options.kubeconfig, options.context)
        result: int = await options.command(cluster, options)
        return result


async def status(cluster: Cluster, options: argparse.Namespace) -> int:
    """0, or 1 where the run has failed. With --watch, ends when the run is settled."""
    console = Console()
    run = await _get_run(cluster, options)
    if options.output == "json":
        print(json.dumps(json_view(run), indent=2))
    elif options.watch:
        with Live(view(run, time.time()), console=console, auto_refresh=False) as live:
            while not is_settled(run):
                await asyncio.sleep(_WATCH_SECONDS)
                run = await _get_run(cluster, options)
                live.update(view(run, time.time()), refresh=True)
    else:
        console.print(view(run, time.time()))
    found = summary(run_status(run))
    return 1 if found and found.status == "False" else 0


async def chat(cluster: Cluster, options: argparse.Namespace) -> int:
    """One question and its answer, or a conversation until end of input."""
    run = await _get_run(cluster, options)
    serving = run_status(run).serving
    if serving is None or not serving.ready_replicas:
        raise UsageError(
            f"{options.run} does not serve yet: see `pretrain status {options.run} "
            f"-n {options.namespace}`, and that its spec has `serving`"
        )
    messages: list[dict[str, str]] = []
    async for question in _questions(options.question):
        messages.append({"role": "user", "content": question})
        body = {"model": options.run, "messages": [*messages], "max_tokens": options.max_tokens}
        service = f"{names.serving(options.run)}:{SERVING_PORT}"
        reply = await cluster.through_service(
            options.namespace, service, "/v1/chat/completions", body
        )
        answer = reply["choices"][0]["message"]["content"]
        messages.append({"role": "assistant", "content": answer})
        print(answer)
    return 0


async def logs(cluster: Cluster, options: argparse.Namespace) -> int:
    """Of all pods, or of one stage's; with several, each line begins with its pod."""
    await _get_run(cluster, options)
    selector = f"{names.RUN_LABEL}={options.run}"
    if options.stage:
        selector += f",{names.COMPONENT_LABEL}={options.stage}"
    pods = await cluster.list("Pod", options.namespace, label_selector=selector)
    readable = [pod for pod in pods.items if pod["status"].get("phase") != "Pending"]
    if not readable:
        of_stage = f" of stage {options.stage}" if options.stage else ""
        raise UsageError(
            f"{options.run} has no started pods{of_stage} in {options.namespace}: "
            f"see `pretrain status {options.run}`; finished stages' pods go with their Jobs"
        )
    prefixed = len(readable) > 1
    async with asyncio.TaskGroup() as tasks:
        for pod in readable:
            tasks.create_task(_print_log(cluster, options, pod, prefixed=prefixed))
    return 0


def is_settled(run: KubernetesObject) -> bool:
    """Whether the summary condition is True or False."""
    found = summary(run_status(run))
    return found is not None and found.status != "Unknown"


async def _get_run(cluster: Cluster, options: argparse.Namespace) -> dict[str, Any]:
    run = await cluster.get(api.KIND, options.namespace, options.run)
    if run is None:
        raise UsageError(
            f"there is no PretrainRun {options.run!r} in namespace {options.namespace!r}: "
            "`kubectl get pretrainruns --all-namespaces` lists them"
        )
    return run


async def _questions(given: str | None) -> AsyncIterator[str]:
    if given is not None:
        yield given
        return
    with contextlib.suppress(EOFError):
        while True:
            question = await asyncio.to_thread(input, "> ")
            if question.strip():
                yield question


async def _print_log(
    cluster: Cluster, options: argparse.Namespace, pod: Mapping[str, Any], *, prefixed: bool
) -> None:
    name = pod["metadata"]["name"]
    prefix = f"[{name}] " if prefixed else ""
    lines = cluster.log_lines(
        options.namespace,
        name,
        container=pod["spec"]["containers"][0]["name"],
        follow=options.follow,
        tail_lines=options.tail,
    )
    try:
        async for line in lines:
            print(f"{prefix}{line}", flush=True)
    except ApiError as error:  # of one pod: the others' lines are still worth showing
        print(f"pretrain: log of {name}: {error.message}", file=sys.stderr)


def _advice(error: ApiError) -> str:
    if error.reason == "NoConfiguration":
        return f"{error.message}; set KUBECONFIG or --kubeconfig"
    if is_unanswered(error):
        return f"{error.message}; is the cluster up, and --context the right one?"
    if error.code in (401, 403):
        return f"{error.message}; ask for the `view` role (chat and logs: `edit`) in the namespace"
    if error.is_not_found:
        return f"{error.message}; is the operator's chart installed, with its CRD?"
    return error.message


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """argparse settles optional positionals too early: of `chat RUN -n NS QUESTION` one is left."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and getattr(options, "question", "") is None and not rest[0].startswith("-"):
        options.question, rest = rest[0], rest[1:]
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _parser() -> argparse.ArgumentParser:
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("-n", "--namespace", help="default: the context's")
    place.add_argument("--kubeconfig", help="default: $KUBECONFIG, else ~/.kube/config")
    place.add_argument("--context", help="of the kubeconfig")
    common = argparse.ArgumentParser(add_help=False, parents=[place])
    common.add_argument("run", metavar="RUN", help="name of the PretrainRun")
    parser = argparse.ArgumentParser(prog="pretrain", description="Look at a run, and talk to it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("status", parents=[common], help="stages, progress, incidents")
    one.add_argument("-w", "--watch", action="store_true", help="until the run is settled")
    one.add_argument("-o", "--output", choices=("text", "json"), default="text")
    one.set_defaults(command=status)

    one = commands.add_parser("chat", parents=[common], help="ask the served model")
    one.add_argument("question", nargs="?", help="left out: a conversation")
    one.add_argument("--max-tokens", type=int, default=128)
    one.set_defaults(command=chat)

    one = commands.add_parser("logs", parents=[common], help="what the pods say")
    one.add_argument("--stage", choices=_STAGES, help="left out: all")
    one.add_argument("-f", "--follow", action="store_true")
    one.add_argument("--tail", type=int, default=200, help="last lines of each pod (200)")
    one.set_defaults(command=logs)

    register_faults(commands, common, _get_run)
    register_plan(commands)
    register_simulate(commands)
    register_sweep(commands, place)
    return parser
