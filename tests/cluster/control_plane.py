"""etcd, the API server, the controller manager and the scheduler, on one address.

Alone, on a loopback address of its own, it is what integration tests run against: it starts in
seconds, needs no root and no node. Inside a network namespace it is the head of a `Cluster`.
"""

import hashlib
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from . import binaries, configs, pki, processes, rundir
from .processes import ClusterError, wait_until

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_HEALTH = {
    "kube-apiserver": f"{configs.API_PORT}/readyz",
    "kube-controller-manager": f"{configs.CONTROLLER_MANAGER_PORT}/healthz",
    "kube-scheduler": f"{configs.SCHEDULER_PORT}/readyz",
}
_KUBERNETES_SERVICE = "10.96.0.1"
_START_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class NodeMonitor:
    """How soon the controller manager calls a silent node NotReady."""

    period_seconds: float = 1.0
    grace_period_seconds: float = 12.0


class ControlPlane:
    """One control plane, in this process or not: all that is known of it is in its directory.

    with ControlPlane("integration") as control_plane:
        control_plane.kubectl("get", "namespaces")
    """

    def __init__(
        self,
        name: str = "control-plane",
        directory: Path | None = None,
        *,
        address: str | None = None,
        network_namespace: str | None = None,
        monitor: NodeMonitor | None = None,
    ) -> None:
        self.name = name
        self.directory = (directory or rundir.default_directory(name)).resolve()
        self.address = address or loopback_address(self.directory)
        self._network_namespace = network_namespace
        self._monitor = monitor or NodeMonitor()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "admin.kubeconfig"

    def up(self) -> None:
        """Starts a fresh one, after removing what an earlier one of this name left."""
        binaries.build(binaries.CONTROL_PLANE_PROGRAMS)
        self.down()
        rundir.create(self.directory)
        self.start()

    def down(self) -> None:
        """Ends its processes and deletes its directory; nothing to do is fine."""
        if rundir.exists(self.directory):
            rundir.kill_recorded(self.directory)
            rundir.remove(self.directory)

    def start(self) -> None:
        """Starts the components in a run directory that has been made; returns when all answer."""
        pki.create(self.directory / "pki", [self.address, "127.0.0.1", _KUBERNETES_SERVICE])
        for client in ("admin", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
            self.write_kubeconfig(client, self.directory / "pki", self.directory)
        self._start("etcd")
        self._start("kube-apiserver")
        self._await("kube-apiserver")
        self._start("kube-controller-manager")
        self._start("kube-scheduler")
        self._await("kube-controller-manager")
        self._await("kube-scheduler")
        wait_until(self._has_default_service_account, "the default ServiceAccount", 30)

    def restart(self, component: str) -> None:
        """Kills one component and starts it again; returns when it answers."""
        if component not in COMPONENTS:
            raise ValueError(f"component {component!r} must be one of {', '.join(COMPONENTS)}")
        self.stop(component)
        self._start(component)
        self._await(component if component in _HEALTH else "kube-apiserver")

    def stop(self, component: str) -> None:
        """Kills one component; `restart` brings it back."""
        found = processes.recorded(self.directory)
        processes.kill([found[component]] if component in found else [])

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """What kubectl prints, as the administrator; raises ClusterError with what went wrong."""
        command = binaries.path("kubectl")
        ours = (f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.directory}/kubectl-cache")
        return processes.run(command, *ours, *arguments, stdin=stdin)

    def write_kubeconfig(self, client: str, keys: Path, directory: Path) -> Path:
        """Writes <client>.kubeconfig for the key pair <client>.key, <client>.crt in `keys`."""
        file = directory / f"{client}.kubeconfig"
        server = f"https://{self.address}:{configs.API_PORT}"
        text = configs.kubeconfig(
            server, keys, client, cluster=self.name, authority=self.directory / "pki" / "ca.crt"
        )
        file.touch(mode=0o600)
        file.write_text(text)
        return file

    def is_running(self) -> bool:
        """Whether every component runs."""
        found = processes.recorded(self.directory)
        return all(name in found and processes.is_running(found[name]) for name in COMPONENTS)

    def __enter__(self) -> "ControlPlane":
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def _flags(self, component: str) -> list[str]:
        etcd_address = "127.0.0.1" if self._network_namespace else self.address
        if component == "etcd":
            return configs.etcd_flags(self.directory, etcd_address)
        if component == "kube-apiserver":
            return configs.api_server_flags(self.directory, self.address, etcd_address)
        if component == "kube-scheduler":
            return configs.scheduler_flags(self.directory, self.address)
        return configs.controller_manager_flags(
            self.directory,
            self.address,
            monitor_period_seconds=self._monitor.period_seconds,
            grace_period_seconds=self._monitor.grace_period_seconds,
        )

    def _start(self, component: str) -> None:
        processes.start(
            [binaries.path(component), *self._flags(component)],
            name=component,
            directory=self.directory,
            network_namespace=self._network_namespace,
        )

    def _await(self, component: str) -> None:
        url = f"https://{self.address}:{_HEALTH[component]}"
        process = processes.recorded(self.directory)[component]

        def ready_or_dead() -> bool:
            return answers(url) or not processes.is_running(process)

        wait_until(ready_or_dead, f"{component} at {url}", _START_TIMEOUT_SECONDS)
        if not processes.is_running(process):
            log = self.directory / "logs" / f"{component}.log"
            raise ClusterError(f"{component} ended:\n{processes.last_lines(log)}\n(all of {log})")

    def _has_default_service_account(self) -> bool:
        try:
            self.kubectl("get", "serviceaccount", "default", "--namespace=default")
        except ClusterError:
            return False
        return True


def loopback_address(directory: Path) -> str:
    """An address in 127.0.0.0/8 that no control plane in another directory has.

    All of them are this machine without any set-up, so every control plane has its own set of
    the standard ports.
    """
    digest = hashlib.sha256(bytes(directory)).digest()
    return f"127.{64 + digest[0] % 128}.{digest[1]}.{1 + digest[2] % 254}"


def answers(url: str) -> bool:
    """Whether a health address says yes; certificates are not its subject."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
