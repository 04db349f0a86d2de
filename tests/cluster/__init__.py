"""A real Kubernetes on one machine: etcd, control plane, CoreDNS, and nodes made of namespaces.

It exists so that the demo and the end-to-end tests run against real kubelets whose power can be
cut, without a container engine, a registry or a cloud. Standard library only: it runs before any
Python environment of the project exists. It never touches a cluster that it did not start.

    python3 -m tests.cluster --help
"""

from .cluster import Cluster
from .control_plane import ControlPlane
from .node import Node
from .processes import ClusterError

__all__ = ["Cluster", "ClusterError", "ControlPlane", "Node"]
