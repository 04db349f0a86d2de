"""One node: a set of namespaces with its own containerd, kubelet and kube-proxy.

Cutting its power is killing process 1 of its pid namespace: the kernel then kills every process
in it at once, pods included, and nothing gets a chance to say goodbye. What the node wrote to its
disk (its directory) is there when it comes back, as on a real machine.
"""

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from . import binaries, cgroups, configs, network, pki, processes
from .control_plane import ControlPlane
from .network import Network
from .processes import ClusterError

_INIT = Path(__file__).parent / "node_init.py"
_CNI_FOLDERS = ("/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin")
_NAMESPACES = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Node:
    """A node called node-N; all its state is in the run directory and in the kernel."""

    name: str
    control_plane: ControlPlane
    network: Network

    def __post_init__(self) -> None:
        if not re.fullmatch(r"node-[1-9][0-9]?", self.name):
            raise ValueError(f"node name {self.name!r} must be node-1 to node-{network.MAX_NODES}")

    @property
    def index(self) -> int:
        return int(self.name.removeprefix("node-"))

    @property
    def directory(self) -> Path:
        return self.control_plane.directory / "nodes" / self.name

    @property
    def cgroup(self) -> str:
        return f"{self.network.namespace}/{self.name}"

    def power_on(self) -> None:
        """Starts the node, new or known; returns before Kubernetes says that it is Ready."""
        if self.is_on():
            return
        self._release()
        self.directory.mkdir(parents=True, exist_ok=True)
        network.create_node(self.network, self.name, self.index)
        cgroups.create(self.cgroup)
        self._write_configuration()
        processes.start(
            ["unshare", *_NAMESPACES, sys.executable, "-I", _INIT, self.directory / "init.json"],
            name=self.name,
            directory=self.control_plane.directory,
            network_namespace=self.network.node_namespace(self.name),
        )

    def power_off(self) -> None:
        """Cuts the power: every process of the node is gone when this returns."""
        process = processes.recorded(self.control_plane.directory).get(self.name)
        if process:
            processes.kill([*processes.children(process), process])
        self._release()

    def remove(self) -> None:
        """Cuts the power for good: the node's object and directory go too."""
        self.power_off()
        self.control_plane.kubectl("delete", "node", self.name, "--ignore-not-found")
        shutil.rmtree(self.directory, ignore_errors=True)
        processes.forget(self.control_plane.directory, self.name)

    def pull_cable(self) -> None:
        """Cuts the node off from the network; its processes go on."""
        network.set_cable(self.network, self.name, plugged=False)

    def plug_cable(self) -> None:
        """Undoes `pull_cable`."""
        network.set_cable(self.network, self.name, plugged=True)

    def reboot(self) -> None:
        """Cuts the power, and gives it again at once."""
        self.power_off()
        self.power_on()

    def part(self) -> None:
        """Its pods and other nodes' pods do not reach each other; the API server reaches it."""
        network.set_partition(self.network, self.name, self.index, parted=True)

    def silence(self) -> None:
        """Its kubelet does not reach the API server; its pods go on, and reach all others."""
        self._set_silence(silent=True)

    def heal(self) -> None:
        """Undoes `part` and `silence`."""
        network.set_partition(self.network, self.name, self.index, parted=False)
        self._set_silence(silent=False)

    def _set_silence(self, *, silent: bool) -> None:
        server = self.control_plane.address
        network.set_silence(self.network, self.name, server, configs.API_PORT, silent=silent)

    def is_on(self) -> bool:
        """Whether the node has power."""
        process = processes.recorded(self.control_plane.directory).get(self.name)
        return process is not None and processes.is_running(process)

    def is_ready(self) -> bool:
        """Whether Kubernetes says that it is Ready; ClusterError if the node itself has ended."""
        if not self.is_on():
            log = self.control_plane.directory / "logs" / f"{self.name}.log"
            last = processes.last_lines(log)
            raise ClusterError(f"{self.name} is off:\n{last}\n(see {log}, {self.directory}/*.log)")
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        arguments = ("get", "node", self.name, "--ignore-not-found", f"--output=jsonpath={path}")
        return self.control_plane.kubectl(*arguments) == "True"

    def _release(self) -> None:
        """Gives back what only a running node has in the kernel."""
        network.remove_node(self.network, self.name)
        cgroups.remove(self.cgroup)

    def _write_configuration(self) -> None:
        directory, plane = self.directory, self.control_plane
        if not (directory / "kubelet.kubeconfig").exists():
            self._issue_certificate()
        address = self.network.node(self.index)
        (directory / "resolv.conf").write_text(f"nameserver {self.network.gateway}\n")
        (directory / "kubelet.json").write_text(
            configs.kubelet_config(
                plane.directory / "pki",
                address,
                dns=self.network.gateway,
                cgroup=self.cgroup,
                resolv_conf=directory / "resolv.conf",
            )
        )
        proxy = plane.directory / "kube-proxy.kubeconfig"
        (directory / "kube-proxy.json").write_text(configs.kube_proxy_config(proxy, self.name))
        containerd = configs.containerd_config(directory, cni_binaries())
        (directory / "containerd.toml").write_text(containerd)
        (directory / "cni").mkdir(exist_ok=True)
        pods = configs.cni_config(network.pod_range(self.index))
        (directory / "cni" / "10-pods.conflist").write_text(pods)
        (directory / "init.json").write_text(json.dumps(self._init_config(address), indent=1))

    def _init_config(self, address: str) -> dict[str, object]:
        directory = self.directory
        kubelet = [
            f"--config={directory}/kubelet.json",
            f"--kubeconfig={directory}/kubelet.kubeconfig",
            f"--hostname-override={self.name}",
            f"--node-ip={address}",
        ]
        proxy = [f"--config={directory}/kube-proxy.json"]
        images = sorted((self.control_plane.directory / "images").glob("*.tar"))
        return {
            "hostname": self.name,
            "directory": str(directory),
            "containerd": ["containerd", f"--config={directory}/containerd.toml"],
            "images": [str(image) for image in images],
            "services": {
                "kubelet": [str(binaries.path("kubelet")), *kubelet],
                "kube-proxy": [str(binaries.path("kube-proxy")), *proxy],
            },
        }

    def _issue_certificate(self) -> None:
        keys = self.control_plane.directory / "pki"
        subject = f"/O=system:nodes/CN=system:node:{self.name}"
        pki.issue_client(keys, self.name, subject)
        written = self.control_plane.write_kubeconfig(self.name, keys, self.directory)
        written.rename(self.directory / "kubelet.kubeconfig")


def cni_binaries() -> Path:
    """The folder of the machine's network plugins."""
    for folder in _CNI_FOLDERS:
        if os.access(f"{folder}/ptp", os.X_OK):
            return Path(folder)
    searched = ", ".join(_CNI_FOLDERS)
    raise ClusterError(f"no network plugin in {searched}: run hack/system-packages.sh")
