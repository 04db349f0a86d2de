"""The cluster's own network: everything lives in network namespaces, almost nothing on the host.

    host ──veth── [ cluster: bridge, control plane, CoreDNS ] ──veth── [ node ] ──veth── pod
     198.18.S.254           198.18.S.1                         198.18.S.10+N    10.244.N.x

The host gets one interface and one /24, so that kubectl reaches the API server; the host's own
firewall, forwarding and routes play no part. Nothing has a default route: nothing in the cluster
can reach beyond the machine. S, the slot, is the first one free, so that clusters do not meet.
"""

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .processes import ClusterError, identify, kill, run

POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
MAX_NODES = 99
_SLOTS = 256
_BRIDGE_ADDRESS = "02:00:00:00:00:01"


@dataclass(frozen=True)
class Network:
    """The addresses of one cluster; 198.18.0.0/15 is set aside for tests (RFC 2544)."""

    namespace: str
    slot: int

    @property
    def gateway(self) -> str:
        return f"198.18.{self.slot}.1"

    @property
    def host(self) -> str:
        return f"198.18.{self.slot}.254"

    def node(self, index: int) -> str:
        return f"198.18.{self.slot}.{10 + index}"

    def node_namespace(self, node: str) -> str:
        return f"{self.namespace}.{node}"


def pod_range(index: int) -> str:
    """The addresses of the pods on node number `index`."""
    return f"10.244.{index}.0/24"


def create(namespace: str) -> Network:
    """Makes the cluster's namespace with its bridge, and the veth pair to the host."""
    run("ip", "netns", "add", namespace)
    _forward(namespace)
    # An address of its own: else it takes a node's, and is deaf for seconds once that node is gone.
    _ip(namespace, "link set lo up", f"link add br0 address {_BRIDGE_ADDRESS} type bridge")
    network = Network(namespace, _claim_slot(namespace))
    _ip(
        namespace,
        "link set uplink master br0 up",
        f"addr add {network.gateway}/24 dev br0",
        "link set br0 up",
    )
    run("ip", "addr", "add", f"{network.host}/24", "dev", _host_link(network.slot))
    run("ip", "link", "set", _host_link(network.slot), "up")
    return network


def create_node(network: Network, node: str, index: int) -> None:
    """Makes the namespace of a node, wired to the bridge, its pods reachable by the others."""
    namespace = network.node_namespace(node)
    run("ip", "netns", "add", namespace)
    _forward(namespace)
    _ip(
        network.namespace,
        f"link add {node} type veth peer name eth0 netns {namespace}",
        f"link set {node} master br0 up",
        f"route replace {pod_range(index)} via {network.node(index)}",
    )
    _ip(
        namespace,
        "link set lo up",
        f"addr add {network.node(index)}/24 dev eth0",
        "link set eth0 up",
        f"route add {POD_RANGE} via {network.gateway}",
        # kube-proxy rewrites these before they leave; the route only has to exist.
        f"route add {SERVICE_RANGE} via {network.gateway}",
    )


def set_cable(network: Network, node: str, *, plugged: bool) -> None:
    """Pulls or plugs a node's cable: the node runs on, but nobody hears from it."""
    _ip(network.namespace, f"link set {node} {'up' if plugged else 'down'}")


def remove_node(network: Network, node: str) -> None:
    """Removes a node's namespace, and its cable, which the kernel would leave for a while."""
    remove(network.node_namespace(node))
    with contextlib.suppress(ClusterError):  # it went with the namespace already
        _ip(network.namespace, f"link del {node}")


def set_partition(network: Network, node: str, index: int, *, parted: bool) -> None:
    """Parts a node's pods from all other nodes' pods, or undoes it; the node itself is reached."""
    own = pod_range(index)
    chain = (
        "chain forward {\ntype filter hook forward priority 0;\n"
        f"ip saddr {own} ip daddr {POD_RANGE} ip daddr != {own} drop\n"
        f"ip daddr {own} ip saddr {POD_RANGE} ip saddr != {own} drop\n}}\n"
    )
    _set_table(network, node, "partition", chain if parted else "")


def set_silence(network: Network, node: str, server: str, port: int, *, silent: bool) -> None:
    """Parts a node's kubelet from the API server, or undoes it; its pods reach all others."""
    chain = (
        "chain output {\ntype filter hook output priority 0;\n"
        f"ip daddr {server} tcp dport {port} reject with tcp reset\n}}\n"
    )
    _set_table(network, node, "silence", chain if silent else "")


def _set_table(network: Network, node: str, name: str, chain: str) -> None:
    rules = f"table ip {name}\ndelete table ip {name}\n"  # nft's way to say: if it is there
    if chain:
        rules += f"table ip {name} {{\n{chain}}}\n"
    namespace = f"--net=/run/netns/{network.node_namespace(node)}"
    run("nsenter", namespace, "nft", "-f", "-", stdin=rules)


def remove(namespace: str) -> None:
    """Removes one namespace with every interface and process in it, in whatever state it is.

    The processes were killed by their record already, unless the run directory was deleted under
    them; living in this namespace proves that they are the cluster's.
    """
    if Path("/run/netns", namespace).exists():
        inhabitants = run("ip", "netns", "pids", namespace).split()
        kill(filter(None, (identify(int(pid)) for pid in inhabitants)))
        # Or the host keeps its end while old sockets time out; a node's namespace has none.
        with contextlib.suppress(ClusterError):
            _ip(namespace, "link del uplink")
        run("ip", "netns", "del", namespace)


def namespaces_of(cluster_namespace: str) -> list[str]:
    """The namespaces of a cluster that exist: its nodes' and then its own."""
    nodes = sorted(path.name for path in Path("/run/netns").glob(f"{cluster_namespace}.*"))
    return [*nodes, cluster_namespace]


def candidate_slots(namespace: str, routes: str) -> Iterator[int]:
    """Slots whose range no route of the host names, from one that depends on the name onward."""
    first = zlib.crc32(namespace.encode())
    for offset in range(_SLOTS):
        slot = (first + offset) % _SLOTS
        if f"198.18.{slot}." not in routes:
            yield slot


def _claim_slot(namespace: str) -> int:
    """Creates the host's interface: its name carries the slot, so the kernel is the lock."""
    for slot in candidate_slots(namespace, run("ip", "route", "show", "table", "all")):
        link = f"link add {_host_link(slot)} type veth peer name uplink netns {namespace}"
        try:
            run("ip", *link.split())
        except ClusterError as error:
            if "File exists" not in str(error):
                raise
            continue
        return slot
    raise ClusterError("no free range in 198.18.0.0/16: take other clusters down first")


def _host_link(slot: int) -> str:
    return f"pretrain{slot}"


def _forward(namespace: str) -> None:
    """Makes a namespace a plain router; before it has interfaces, which copy these settings."""
    settings = {"ip_forward": 1, "conf/all/rp_filter": 0, "conf/default/rp_filter": 0}
    settings |= {"conf/all/send_redirects": 0, "conf/default/send_redirects": 0}
    script = "; ".join(f"echo {v} >/proc/sys/net/ipv4/{k}" for k, v in settings.items())
    run("nsenter", f"--net=/run/netns/{namespace}", "sh", "-ec", script)


def _ip(namespace: str, *lines: str) -> None:
    run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(lines) + "\n")
