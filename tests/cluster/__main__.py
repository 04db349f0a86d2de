"""The command line of the local cluster.

    python3 -m tests.cluster build                    compile Kubernetes into the cache, once
    python3 -m tests.cluster up [--nodes 3]           start a fresh cluster
    python3 -m tests.cluster status | kubeconfig      what is there, and how to reach it
    python3 -m tests.cluster node off node-2          cut its power (also: add on remove cut plug
                                                      reboot partition silence heal)
    python3 -m tests.cluster api-server stop | start  of the cluster
    python3 -m tests.cluster volume NAME              a volume that all nodes share
    python3 -m tests.cluster down                     remove it all
    python3 -m tests.cluster control-plane up | down | restart COMPONENT
    python3 -m tests.cluster helm-path

Every command takes --name and --dir, which together say which cluster is meant.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from . import binaries, processes, toolchain
from .cluster import Cluster
from .control_plane import COMPONENTS, ControlPlane
from .node import Node
from .processes import ClusterError

_NODE_ACTIONS: dict[str, Callable[[Node], None]] = {
    "add": Node.power_on,
    "on": Node.power_on,
    "off": Node.power_off,
    "remove": Node.remove,
    "cut": Node.pull_cable,
    "plug": Node.plug_cable,
    "reboot": Node.reboot,
    "partition": Node.part,
    "silence": Node.silence,
    "heal": Node.heal,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; errors of the user and of the machine are one line, not a traceback."""
    given = _parser().parse_args(arguments)
    try:
        given.act(given)
    except (ClusterError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _cluster(given: argparse.Namespace) -> Cluster:
    return Cluster(given.name or "pretrain", given.dir)


def _control_plane(given: argparse.Namespace) -> ControlPlane:
    return ControlPlane(given.name or "control-plane", given.dir)


def _act_on_node(given: argparse.Namespace) -> None:
    cluster = _cluster(given)
    _NODE_ACTIONS[given.action](cluster.node(given.node))
    if given.action in ("add", "on", "reboot"):
        cluster.await_ready()


def _act_on_api_server(given: argparse.Namespace) -> None:
    plane = _cluster(given).control_plane
    if given.action == "stop":
        plane.stop("kube-apiserver")
    else:
        plane.restart("kube-apiserver")


def _act_on_control_plane(given: argparse.Namespace) -> None:
    plane = _control_plane(given)
    if given.action == "up":
        plane.up()
        print(plane.kubeconfig)
    elif given.action == "down":
        plane.down()
    else:
        plane.restart(given.component)


def _print_status(given: argparse.Namespace) -> None:
    cluster = _cluster(given)
    print(f"kubeconfig  {cluster.control_plane.kubeconfig}")
    for name, process in sorted(processes.recorded(cluster.directory).items()):
        print(f"{name:24} {'running' if processes.is_running(process) else 'off'}")
    print(cluster.kubectl("get", "nodes", "--output=wide").rstrip())


def _parser() -> argparse.ArgumentParser:
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("--name", help="default: pretrain, or control-plane for that one")
    which.add_argument("--dir", type=Path, help="run directory; default: by name, in the cache")
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[which])
        added.set_defaults(act=act)
        return added

    command("build", lambda _: binaries.build())
    up = command("up", lambda given: _cluster(given).up(given.nodes))
    up.add_argument("--nodes", type=int, default=3)
    command("down", lambda given: _cluster(given).down())
    command("status", _print_status)
    command("kubeconfig", lambda given: print(_cluster(given).control_plane.kubeconfig))
    command("helm-path", lambda _: print(toolchain.helm()))
    volume = command("volume", lambda given: print(_cluster(given).create_volume(given.volume)))
    volume.add_argument("volume", metavar="NAME")
    node = command("node", _act_on_node)
    node.add_argument("action", choices=_NODE_ACTIONS)
    node.add_argument("node", metavar="NAME")
    server = command("api-server", _act_on_api_server)
    server.add_argument("action", choices=("stop", "start"))
    plane = command("control-plane", _act_on_control_plane)
    plane.add_argument("action", choices=("up", "down", "restart"))
    plane.add_argument("component", nargs="?", choices=COMPONENTS, default="kube-apiserver")
    return parser


if __name__ == "__main__":
    sys.exit(main())
