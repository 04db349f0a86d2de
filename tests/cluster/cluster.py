"""A whole cluster: its network, control plane, DNS and nodes, brought up and taken down as one.

`up` always starts a fresh one and first removes whatever an earlier one of the same directory
left, killed half-way or not; `down` leaves nothing: no process, interface, namespace, cgroup,
mount or file. Two clusters in different directories know nothing of each other.
"""

import json
import os
import shutil
from pathlib import Path

from . import binaries, cgroups, configs, control_plane, images, network, processes, rundir
from .control_plane import ControlPlane, NodeMonitor
from .network import Network
from .node import Node
from .processes import ClusterError, announce, wait_until

_READY_TIMEOUT_SECONDS = 90.0
_COMMANDS = ("containerd", "ctr", "ip", "nft", "nsenter", "openssl", "runc", "unshare")
# A node has these for itself, so a cluster that lived there could not be seen from within it.
_PRIVATE_TO_NODES = ("/run", "/var/run", "/var/log", "/proc", "/sys", "/dev")


class Cluster:
    """A cluster, in this process or not: all that is known of it is in its directory.

    cluster = Cluster("demo")
    cluster.up(nodes=3)
    cluster.node("node-2").power_off()
    cluster.down()
    """

    def __init__(
        self,
        name: str = "pretrain",
        directory: Path | None = None,
        *,
        monitor: NodeMonitor | None = None,
    ) -> None:
        self.name = name
        self.directory = (directory or rundir.default_directory(name)).resolve()
        self._namespace = rundir.identity(name, self.directory)
        self._monitor = monitor

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "admin.kubeconfig"

    def up(self, nodes: int = 3) -> None:
        """Starts a fresh cluster; returns when its nodes are Ready and its DNS answers."""
        self._check_machine(nodes)
        binaries.build()
        self.down()
        announce(f"{self.name}: starting the control plane in {self.directory}")
        rundir.create(self.directory)
        self._create_network()
        images.write(self.directory / "images", binaries.path("pause"))
        self.control_plane.start()
        self._start_dns()
        announce(f"{self.name}: starting {nodes} nodes")
        for index in range(1, nodes + 1):
            self.node(f"node-{index}").power_on()
        self.await_ready()
        announce(f"{self.name}: up; export KUBECONFIG={self.kubeconfig}")

    def down(self) -> None:
        """Removes everything of this cluster, or of the remains of it; nothing there is fine."""
        if rundir.exists(self.directory):
            rundir.kill_recorded(self.directory)
        for namespace in network.namespaces_of(self._namespace):
            network.remove(namespace)
        cgroups.remove(self._namespace)
        rundir.remove(self.directory)

    def await_ready(self) -> None:
        """Waits until every node that has power is Ready and the DNS answers."""
        for node in self.nodes():
            if node.is_on():
                wait_until(node.is_ready, f"{node.name} to be Ready", _READY_TIMEOUT_SECONDS, 0.2)
        url = f"http://{self.network.gateway}:{configs.COREDNS_READY_PORT}/ready"
        wait_until(lambda: control_plane.answers(url), "CoreDNS to be ready", 30)

    def node(self, name: str) -> Node:
        """The node of this name, whether it exists or not."""
        return Node(name, self.control_plane, self.network)

    def nodes(self) -> list[Node]:
        """The nodes that were ever powered on and not removed."""
        folders = (self.directory / "nodes").glob("node-*")
        return sorted((self.node(folder.name) for folder in folders), key=lambda node: node.index)

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """What kubectl prints, as the administrator; raises ClusterError with what went wrong."""
        return self.control_plane.kubectl(*arguments, stdin=stdin)

    def create_volume(self, name: str, capacity: str = "50Gi") -> Path:
        """Makes a folder that all nodes share, and a PersistentVolume of class `local` on it."""
        folder = self.directory / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, images.USER_ID, images.USER_ID)
        volume = configs.persistent_volume(name, folder, capacity)
        self.kubectl("apply", "--filename=-", stdin=volume)
        return folder

    @property
    def network(self) -> Network:
        """The addresses of the running cluster; ClusterError if it was never brought up."""
        try:
            slot = json.loads((self.directory / "network.json").read_text())["slot"]
        except FileNotFoundError:
            raise ClusterError(
                f"cluster {self.name!r} is not up in {self.directory}: "
                f"run python3 -m tests.cluster up --name {self.name}"
            ) from None
        return Network(self._namespace, slot)

    @property
    def control_plane(self) -> ControlPlane:
        """The control plane of the running cluster."""
        return ControlPlane(
            self.name,
            self.directory,
            address=self.network.gateway,
            network_namespace=self._namespace,
            monitor=self._monitor,
        )

    def _create_network(self) -> None:
        created = network.create(self._namespace)
        (self.directory / "network.json").write_text(json.dumps({"slot": created.slot}))

    def _start_dns(self) -> None:
        configuration = self.directory / "Corefile"
        configuration.write_text(configs.corefile(self.directory, self.network.gateway))
        processes.start(
            [binaries.path("coredns"), "-conf", configuration],
            name="coredns",
            directory=self.directory,
            network_namespace=self._namespace,
        )

    def _check_machine(self, nodes: int) -> None:
        """Raises before anything is started if it could not work."""
        if not 1 <= nodes <= network.MAX_NODES:
            raise ValueError(f"nodes is {nodes}: must be 1 to {network.MAX_NODES}")
        if os.geteuid() != 0:
            raise ClusterError("nodes are made of namespaces: run this as root")
        missing = [command for command in _COMMANDS if not shutil.which(command)]
        if missing:
            names = ", ".join(missing)
            raise ClusterError(f"not in PATH: {names}; run hack/system-packages.sh")
        for private in _PRIVATE_TO_NODES:
            if self.directory.is_relative_to(private):
                raise ClusterError(
                    f"--dir {self.directory} is below {private}, which every node has for itself: "
                    "name another directory"
                )
