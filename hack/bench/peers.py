"""Pure: manifests of the peers, made from the pods of our own training Job.

Image, mounts, volume, environment, resources and the trainer are ours; what differs is who starts
the workers again. Both are set up as their users do, and as well as they can be:

recreate   torchrun with static ranks, as Kubeflow Trainer's torch runtime sets it; the Job gives up
           at the first failed pod, and the loop in `recreate` makes a new one at once
elastic    torchrun's c10d rendezvous on the first pod, restarts without limit; a pod whose torchrun
           ended is restarted in place, a lost one made anew by the Job. The address of the store is
           the first pod's full name, which that pod knows without DNS. By default torch 2.15 uses
           one store for all rounds, in which a new worker finds the addresses of the old ones and
           never connects (gloo): each round has a store of its own instead
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from .plain_worker import PATIENCE_VARIABLE
from .trials import ELASTIC, RECREATE

Object = dict[str, Any]

SYSTEM_LABEL = "pretrain.dev/bench-system"
LAUNCHER = ["python", "-m", "torch.distributed.run"]
MAX_RESTARTS = 1000
JOB_LABEL = "batch.kubernetes.io/job-name"
_PORT = "29400"
_OURS_ONLY = "PRETRAIN_"  # variables of our agents
_INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"


def config(run_json: str, system: str) -> str:
    """Our configuration for a peer: with its own folder, without what only our agents can do."""
    ours = json.loads(run_json)
    checkpoint = {**ours["checkpoint"], "memory": None}
    return json.dumps({**ours, "run": system, "checkpoint": checkpoint})


def config_map(namespace: str, system: str, run_json: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": system, "namespace": namespace},
        "data": {"run.json": config(run_json, system)},
    }


def service(namespace: str, system: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": system, "namespace": namespace},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {SYSTEM_LABEL: system},
        },
    }


def job(
    system: str,
    ours: Mapping[str, Any],
    number: int,
    nodes: int,
    script: str,
    patience_seconds: int | None = None,
) -> Object:
    """`ours`: our training Job; `number`: of this Job among the system's; `script`: the worker.

    `patience_seconds`: how long its collectives wait, where not as long as torchtitan's.
    """
    namespace, name = ours["metadata"]["namespace"], f"{system}-{number}"
    labels = {SYSTEM_LABEL: system}
    pod = _pod(system, ours["spec"]["template"]["spec"], name, namespace, nodes, script)
    if patience_seconds is not None:
        patience = {"name": PATIENCE_VARIABLE, "value": str(patience_seconds)}
        pod["containers"][0]["env"].append(patience)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": 0 if system == RECREATE else MAX_RESTARTS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def calls_for_recreate(change: str, pod: Any, job_name: str) -> bool:
    """Whether a change of a pod breaks the Job: it ended, or somebody is about to end it."""
    if pod.metadata.labels.get(JOB_LABEL) != job_name:  # of a Job that is being deleted
        return False
    is_ending = pod.metadata.deletion_timestamp is not None
    return change == "DELETED" or is_ending or pod.status.phase == "Failed"


def _pod(
    system: str, ours: Mapping[str, Any], job_name: str, namespace: str, nodes: int, script: str
) -> Object:
    pod = copy.deepcopy(dict(ours))
    pod.pop("tolerations", None)  # Kubernetes' own: 300 s on a node that does not answer
    pod["terminationGracePeriodSeconds"] = 30  # Kubernetes' own
    pod["restartPolicy"] = "OnFailure" if system == ELASTIC else "Never"
    pod["subdomain"] = system
    # One pod a node, as where each needs a whole node's devices.
    pod["affinity"] = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": {SYSTEM_LABEL: system}},
                }
            ]
        }
    }
    for volume in pod["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = system
    (container,) = pod["containers"]
    container["command"] = [*LAUNCHER, script]
    first = f"{job_name}-0.{system}.{namespace}.svc.cluster.local"
    kept = [entry for entry in container["env"] if not entry["name"].startswith(_OURS_ONLY)]
    container["env"] = [*kept, *_torchrun(system, first, nodes)]
    return pod


def _torchrun(system: str, first: str, nodes: int) -> list[Object]:
    """torchrun's options as variables, the way Kubeflow Trainer gives them."""
    common = {"PET_NNODES": str(nodes), "PET_NPROC_PER_NODE": "1"}
    if system == RECREATE:
        values = {"PET_MASTER_ADDR": first, "PET_MASTER_PORT": _PORT, "PET_MAX_RESTARTS": "0"}
        field = ("PET_NODE_RANK", f"metadata.annotations['{_INDEX_ANNOTATION}']")
    else:
        values = {
            "PET_RDZV_BACKEND": "c10d",
            "PET_RDZV_ENDPOINT": f"{first}:{_PORT}",
            "PET_RDZV_ID": system,
            "PET_MAX_RESTARTS": str(MAX_RESTARTS),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        field = ("PET_LOCAL_ADDR", "status.podIP")
    return [
        *({"name": name, "value": value} for name, value in {**common, **values}.items()),
        {"name": field[0], "valueFrom": {"fieldRef": {"fieldPath": field[1]}}},
    ]
