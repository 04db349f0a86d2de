"""What each component of the cluster is told: flags and configuration files, as pure functions.

JSON wherever YAML is read, since the standard library writes only that.
"""

import base64
import json
from pathlib import Path
from typing import Any

from .network import POD_RANGE, SERVICE_RANGE

API_PORT = 6443
ETCD_PORT = 2379
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259
COREDNS_READY_PORT = 8181
PAUSE_IMAGE = "pretrain.local/pause:1"
HOST_IMAGE = "pretrain.local/host:1"
# More than the defaults of 20 and 30, which make a fresh cluster wait on itself for seconds.
_CLIENT_LIMITS = ["--kube-api-qps=500", "--kube-api-burst=1000"]


def kubeconfig(server: str, keys: Path, client: str, *, cluster: str, authority: Path) -> str:
    """A kubeconfig with its certificates inside, so that the file can be copied anywhere."""
    user = {
        "client-certificate-data": _base64(keys / f"{client}.crt"),
        "client-key-data": _base64(keys / f"{client}.key"),
    }
    endpoint = {"server": server, "certificate-authority-data": _base64(authority)}
    return _json(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": cluster,
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": client}}],
            "clusters": [{"name": cluster, "cluster": endpoint}],
            "users": [{"name": client, "user": user}],
        }
    )


def etcd_flags(directory: Path, address: str) -> list[str]:
    """Flags of a single etcd that never syncs to disk: it does not outlive the machine anyway."""
    client, peer = f"http://{address}:{ETCD_PORT}", f"http://{address}:{ETCD_PORT + 1}"
    return [
        "--name=etcd",
        f"--data-dir={directory}/etcd",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=etcd={peer}",
        "--log-level=warn",
    ]


def api_server_flags(directory: Path, address: str, etcd_address: str) -> list[str]:
    """Flags of the API server; on a loopback address it is not listed as a Service endpoint."""
    pki = directory / "pki"
    reconciler = "none" if address.startswith("127.") else "master-count"
    return [
        f"--etcd-servers=http://{etcd_address}:{ETCD_PORT}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={API_PORT}",
        f"--endpoint-reconciler-type={reconciler}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-account.pub",
        f"--service-account-signing-key-file={pki}/service-account.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--allow-privileged=true",
        # It stands outside the Service network, so it calls webhooks by their pods' addresses.
        "--enable-aggregator-routing=true",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--event-ttl=24h",
    ]


def controller_manager_flags(
    directory: Path, address: str, *, monitor_period_seconds: float, grace_period_seconds: float
) -> list[str]:
    """Flags of the controller manager; the two times decide how soon a dead node is noticed."""
    pki = directory / "pki"
    return [
        f"--kubeconfig={directory}/kube-controller-manager.kubeconfig",
        "--use-service-account-credentials",
        "--leader-elect=false",
        f"--bind-address={address}",
        f"--secure-port={CONTROLLER_MANAGER_PORT}",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/service-account.key",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        f"--node-monitor-period={monitor_period_seconds:g}s",
        f"--node-monitor-grace-period={grace_period_seconds:g}s",
        *_CLIENT_LIMITS,
    ]


def scheduler_flags(directory: Path, address: str) -> list[str]:
    """Flags of the scheduler."""
    return [
        f"--kubeconfig={directory}/kube-scheduler.kubeconfig",
        "--leader-elect=false",
        f"--bind-address={address}",
        f"--secure-port={SCHEDULER_PORT}",
        *_CLIENT_LIMITS,
    ]


def corefile(directory: Path, address: str) -> str:
    """CoreDNS's configuration: the cluster's names, and at once "no such name" for all others."""
    return f"""\
cluster.local:53 in-addr.arpa:53 {{
  bind {address}
  errors
  ready {address}:{COREDNS_READY_PORT}
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {directory}/admin.kubeconfig
    pods insecure
    ttl 1
  }}
  loadbalance
}}
.:53 {{
  bind {address}
  template ANY ANY . {{
    rcode NXDOMAIN
  }}
}}
"""


def kubelet_config(pki: Path, address: str, *, dns: str, cgroup: str, resolv_conf: Path) -> str:
    """The kubelet's configuration.

    `cgroup` is the node's own group in every hierarchy. A power cut must be noticed within
    seconds, hence the short lease and status times. Disk space is the machine's affair, so only
    memory evicts, and images are never collected: nothing could fetch them again.
    """
    return _json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup}",
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "clusterDNS": [dns],
            "clusterDomain": "cluster.local",
            "resolvConf": str(resolv_conf),
            "nodeStatusUpdateFrequency": "4s",
            "nodeLeaseDurationSeconds": 20,
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
            "imageMinimumGCAge": "24h",
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
            "eventRecordQPS": 0,
            "registryPullQPS": 0,
            # The default is a folder below /usr, which the kubelet would make on the host.
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        }
    )


def kube_proxy_config(kubeconfig_file: Path, node: str) -> str:
    """kube-proxy's configuration; the machine's connection-tracking limits are left alone."""
    return _json(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            # The default of a second would be a second of refused connections to a fresh Service.
            "nftables": {"minSyncPeriod": "100ms"},
            "clientConnection": {"kubeconfig": str(kubeconfig_file)},
            "clusterCIDR": POD_RANGE,
            "hostnameOverride": node,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
    )


def containerd_config(directory: Path, cni_binaries: Path) -> str:
    """containerd's configuration, in the version that 1.6, 1.7 and 2.x all read.

    The native snapshotter works on any file system, also where overlayfs cannot be stacked, and
    both images are nearly empty. `restrict_oom_score_adj` lets sandboxes start where root lacks
    CAP_SYS_RESOURCE.
    """
    return f"""\
version = 2
root = "{directory}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_tcp_service = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_binaries}"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def cni_config(pod_range: str) -> str:
    """The pods' network: point-to-point links, each packet routed by the node.

    Routed, not bridged: behind a bridge, a Service whose pod is on the same node answers past the
    address translation unless the kernel has br_netfilter.
    """
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": pod_range}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return _json({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins})


def persistent_volume(name: str, path: Path, capacity: str) -> str:
    """A volume of storage class `local` that every node can write, since all share the machine."""
    return _json(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": capacity},
                "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "local",
                "hostPath": {"path": str(path), "type": "Directory"},
            },
        }
    )


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1) + "\n"


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
