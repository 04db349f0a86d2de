"""The rest of a cluster, in ticks: Job and Deployment controllers, kubelets, a training attempt.

Deterministic: what a tick does depends on the world and on the script of faults only. Nothing here
looks at the operator's code but for names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pretrain_llm.contract import codec
from pretrain_llm.contract.reports import SavedReport
from pretrain_llm.contract.results import StageResult, TerminationMessage
from pretrain_llm.contract.status import (
    AgentStatus,
    FirstStep,
    Progress,
    StatusDocument,
)
from pretrain_operator import names
from pretrain_operator.observed import ObjectKey
from pretrain_operator.times import timestamp

from .world import Object, World, changed, key_of

TICK_SECONDS = 5.0
STEPS_A_TICK = 10
STALL_SECONDS = 0.1
RESTORE_SECONDS = 1.0
FIRST_STEP_SECONDS = 0.5
# The Job controller takes it away once the pod has ended, and not before: see wire.lost_pod.
_FINALIZERS = {"Job": ["batch.kubernetes.io/job-tracking"]}
_UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
# Of the Job controller after a failed pod, twice as long after each further one.
BACK_OFF_SECONDS = 10.0


def node(name: str, *, ready: bool = True, since: float = 0.0) -> Object:
    status = "True" if ready else "Unknown"
    conditions = [{"type": "Ready", "status": status, "lastTransitionTime": timestamp(since)}]
    return {"kind": "Node", "metadata": {"name": name}, "status": {"conditions": conditions}}


def label(item: Object, name: str) -> str | None:
    value: str | None = item["metadata"].get("labels", {}).get(name)
    return value


def is_terminating(item: Object) -> bool:
    return "deletionTimestamp" in item["metadata"]


@dataclass
class Simulation:
    """`script`: (step, what happens) pairs; each once, in order, when training is at its step."""

    world: World
    script: list[tuple[int, Callable[[Simulation], None]]] = field(default_factory=list)
    slots: int = 2
    saved: SavedReport | None = None  # the newest checkpoint on the volume
    resume_at: float | None = None  # when the user takes a suspension back
    backs_off_until: dict[str, float] = field(default_factory=dict)  # by the Job's name

    @property
    def total_steps(self) -> int:
        spec = self.world.body["spec"]
        return int((spec.get("training") or spec["script"])["steps"])

    def copy(self) -> Simulation:
        return replace(
            self,
            world=self.world.copy(),
            script=list(self.script),
            backs_off_until=dict(self.backs_off_until),
        )

    def tick(self) -> None:
        self.world.now += TICK_SECONDS
        self._kubelets_stop_pods()
        for deployment in self.world.of_kind("Deployment"):
            self._deployment(deployment)
        self._pods_without_deployment()
        for job in self.world.of_kind("Job"):
            self._job(job)
        self._training()
        if self.resume_at is not None and self.world.now >= self.resume_at:
            self.resume_at = None
            self.world.edit(suspend=False)

    # Controllers and kubelets

    def _kubelets_stop_pods(self) -> None:
        """And the Job controller lets those go that have ended."""
        for pod in self.world.of_kind("Pod"):
            has_ended = pod["status"]["phase"] in ("Succeeded", "Failed")
            place = pod["spec"].get("nodeName")
            if is_terminating(pod) and (has_ended or place is None or self._is_ready(place)):
                del self.world.objects[key_of(pod)]
                self._count_failure(pod)

    def _count_failure(self, pod: Object) -> None:
        """Not of a suspension: the Job controller takes their finalizers before it deletes them."""
        job = self._job_of(pod)
        if job is None or job["spec"].get("suspend") or pod["status"]["phase"] == "Succeeded":
            return
        failed = job.get("status", {}).get("failed", 0) + 1
        self.world.objects[key_of(job)] = changed({"status": {}, **job}, status={"failed": failed})
        until = self.world.now + BACK_OFF_SECONDS * 2.0 ** (failed - 1)
        self.backs_off_until[job["metadata"]["name"]] = until

    def _job_of(self, pod: Object) -> Object | None:
        uid = pod["metadata"]["ownerReferences"][0]["uid"]
        jobs = (job for job in self.world.of_kind("Job") if job["metadata"]["uid"] == uid)
        return next(jobs, None)

    def _is_ready(self, name: str) -> bool:
        found = self.world.nodes.get(name)
        return found is not None and found["status"] == node(name)["status"]

    def _deployment(self, deployment: Object) -> None:
        wanted = deployment["spec"]["replicas"]
        name = f"{deployment['metadata']['name']}-{deployment['metadata']['generation']}"
        if wanted and ObjectKey("Pod", name) not in self.world.objects:
            self._run_pod(name, deployment, "node-0")
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "readyReplicas": wanted,
            "updatedReplicas": wanted,
        }
        self.world.objects[key_of(deployment)] = {**deployment, "status": status}

    def _pods_without_deployment(self) -> None:
        """Their Deployment is gone, rolled on or scaled to nothing."""
        kept = {
            f"{item['metadata']['name']}-{item['metadata']['generation']}"
            for item in self.world.of_kind("Deployment")
            if item["spec"]["replicas"]
        }
        for pod in self.world.of_kind("Pod"):
            component = label(pod, names.COMPONENT_LABEL)
            if component in ("coordinator", "serving") and pod["metadata"]["name"] not in kept:
                self.world.objects[key_of(pod)] = self.world.terminating(pod)

    def _run_pod(self, name: str, owner: Object, node_name: str, **labels: str) -> None:
        template = owner["spec"]["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {**template["metadata"]["labels"], **labels},
                "ownerReferences": [{"uid": owner["metadata"]["uid"]}],
                "finalizers": _FINALIZERS.get(owner["kind"], []),
            },
            "spec": {"nodeName": node_name},
            "status": {"phase": "Running"},
        }
        self.world.apply(pod)

    def _job(self, job: Object) -> None:
        if job.get("status", {}).get("conditions"):
            return
        if job["spec"].get("suspend"):
            for pod in self._pods_of(job):
                self.world.objects[key_of(pod)] = self.world.terminating(pod)
        elif label(job, names.COMPONENT_LABEL) == "training":
            self._fill_slots(job)
        elif not self._pods_of(job):
            self._run_pod(f"{job['metadata']['name']}-x", job, "node-0")
        else:
            self._finish_stage(job)

    def _fill_slots(self, job: Object) -> None:
        """A slot is filled again only once its last pod is gone (podReplacementPolicy Failed), and
        the back-off is over.
        """
        self._schedule(job)
        if self.world.now < self.backs_off_until.get(job["metadata"]["name"], 0.0):
            return
        pods = self._pods_of(job)
        for slot in range(job["spec"]["completions"]):
            if any(label(pod, names.SLOT_LABEL) == str(slot) for pod in pods):
                continue
            if (place := self._place(job)) is not None:
                name = f"{job['metadata']['name']}-{slot}-{self.world.objects.made}"
                self._run_pod(name, job, place, **{names.SLOT_LABEL: str(slot)})

    def _schedule(self, job: Object) -> None:
        """Pods that the operator has made."""
        for pod in self._pods_of(job):
            if pod["spec"].get("nodeName") is not None or is_terminating(pod):
                continue
            if (place := self._place(job)) is not None:
                pod = changed(pod, spec={"nodeName": place}, status={"phase": "Running"})
            else:
                pod = changed(pod, status={"conditions": [_UNSCHEDULABLE]})
            self.world.objects[key_of(pod)] = pod

    def _place(self, job: Object) -> str | None:
        """A node that takes the Job's pods and has none of them."""
        taken = {pod["spec"].get("nodeName") for pod in self._pods_of(job)}
        free = (
            name
            for name in sorted(self.world.nodes)
            if self._is_ready(name) and _takes(self.world.nodes[name], job)
        )
        return next((name for name in free if name not in taken), None)

    def _pods_of(self, job: Object) -> list[Object]:
        uid = job["metadata"]["uid"]
        return [
            pod
            for pod in self.world.of_kind("Pod")
            if pod["metadata"]["ownerReferences"][0]["uid"] == uid
        ]

    def _finish_stage(self, job: Object) -> None:
        component = label(job, names.COMPONENT_LABEL)
        stage = {"data": "Data", "export": "Export", "postTraining": "PostTraining"}[str(component)]
        name = job["metadata"]["name"]
        result = StageResult(stage, f"/workspace/{name}", f"digest-{name}", metrics={"a": 1.0})
        self.end_pods(job, 0, codec.to_json(TerminationMessage(result=result)))
        self.finish(job, "Complete")

    def end_pods(self, job: Object, exit_code: int, message: str, reason: str = "") -> None:
        phase = "Failed" if exit_code else "Succeeded"
        ended = {
            "exitCode": exit_code,
            "reason": reason or ("Error" if exit_code else "Completed"),
            "message": message,
            "finishedAt": timestamp(self.world.now),
        }
        status = {
            "phase": phase,
            "containerStatuses": [{"name": "main", "state": {"terminated": ended}}],
        }
        for pod in self._pods_of(job):
            self.world.objects[key_of(pod)] = {**pod, "status": status}

    def finish(self, job: Object, condition: str) -> None:
        status: dict[str, Any] = {"conditions": [{"type": condition, "status": "True"}]}
        if condition == "Complete":
            status["completionTime"] = timestamp(self.world.now)
        self.world.objects[key_of(job)] = changed({"status": {}, **job}, status=status)

    # Training: the coordinator's document

    def _training(self) -> None:
        coordinator = self._live("coordinator")
        if not coordinator:
            self.world.document = None
            return
        attempt = int(str(label(coordinator[0], names.ATTEMPT_LABEL)))
        document = self.world.document
        if document is None or document.attempt != attempt:
            document = StatusDocument(
                self.world.run_name,
                attempt,
                self.world.now,
                self.world.now,
                latest_checkpoint=self.saved,
            )
        self.world.document = self._next(replace(document, time=self.world.now))
        self.saved = self.world.document.latest_checkpoint
        if self.world.document.finished:
            job = self.world.objects[
                ObjectKey("Job", names.training_job(self.world.run_name, attempt))
            ]
            self.end_pods(job, 0, "")
            self.finish(job, "Complete")
        self._faults()

    def _live(self, component: str) -> list[Object]:
        return [
            pod
            for pod in self.world.of_kind("Pod")
            if label(pod, names.COMPONENT_LABEL) == component
            and pod["status"]["phase"] == "Running"
            and self._is_ready(pod["spec"]["nodeName"])
            and not is_terminating(pod)
        ]

    def _next(self, document: StatusDocument) -> StatusDocument:
        """One tick of an attempt: a round forms, makes its first steps, steps on, ends."""
        if document.finished:
            return document
        pods = self._live("training")
        agents = tuple(
            AgentStatus(
                pod["metadata"]["name"],
                int(str(label(pod, names.SLOT_LABEL))),
                pod["spec"]["nodeName"],
                "Running",
                self.world.now,
                rank,
            )
            for rank, pod in enumerate(pods)
        )
        document = replace(document, agents=agents)
        if len(agents) < self.slots:
            return replace(document, broken=True)
        if document.broken:
            formed = replace(
                document, broken=False, round=document.round + 1, round_formed_at=self.world.now
            )
            return _recovering(formed)
        return self._stepped(document)

    def _stepped(self, document: StatusDocument) -> StatusDocument:
        saved = document.latest_checkpoint
        last = document.progress.step if document.progress else (saved.step if saved else 0)
        step = min(last + STEPS_A_TICK, self.total_steps)
        progress = Progress(
            step, self.total_steps, 10.0 / step, 10.0, step * 4096, 1000.0, 0.5, self.world.now
        )
        checkpoint = SavedReport(step, f"/ckpt/step-{step}", 1, self.world.now, STALL_SECONDS)
        first = FirstStep(last + 1, self._first_step_time(document))
        return _recovered(
            replace(
                document,
                progress=progress,
                first_step=document.first_step or first,
                latest_checkpoint=checkpoint,
                stall_seconds=document.stall_seconds + STALL_SECONDS,
                finished=step == self.total_steps,
            )
        )

    def _first_step_time(self, document: StatusDocument) -> float:
        formed = document.round_formed_at or self.world.now
        return formed + RESTORE_SECONDS + FIRST_STEP_SECONDS

    def _faults(self) -> None:
        document = self.world.document
        step = document.progress.step if document and document.progress else 0
        if self.script and step >= self.script[0][0]:
            self.script.pop(0)[1](self)


def _takes(node: Object, job: Object) -> bool:
    """By the node affinity of the Job's pods."""
    affinity = job["spec"]["template"]["spec"]["affinity"].get("nodeAffinity")
    if affinity is None:
        return True
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    labels = node["metadata"].get("labels", {})
    return not any(rule["key"] in labels for rule in term.get("matchExpressions", ())) and not any(
        node["metadata"]["name"] in rule["values"] for rule in term.get("matchFields", ())
    )


def _recovering(document: StatusDocument) -> StatusDocument:
    if not document.incidents or document.round_formed_at is None:
        return document
    last = document.incidents[-1]
    seconds = document.round_formed_at - last.time - (last.detect_seconds or 0.0)
    return _with_last_incident(document, reschedule_seconds=seconds)


def _recovered(document: StatusDocument) -> StatusDocument:
    if not document.incidents or document.incidents[-1].first_step_seconds is not None:
        return document
    step = document.incidents[-1].last_step
    return _with_last_incident(
        document,
        restore_seconds=RESTORE_SECONDS,
        first_step_seconds=FIRST_STEP_SECONDS,
        resumed_step=step,
    )


def _with_last_incident(document: StatusDocument, **parts: Any) -> StatusDocument:
    if not document.incidents:
        return document
    last = replace(document.incidents[-1], **parts)
    return replace(document, incidents=(*document.incidents[:-1], last))


def claim(name: str) -> Object:
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "uid": "claim", "generation": 1},
        "status": {"phase": "Bound"},
    }


def cluster(world: World, **parts: Any) -> Simulation:
    """Four ready nodes and the run's claim."""
    world.nodes = {name: node(name) for name in ("node-0", "node-1", "node-2", "node-3")}
    name = world.body["spec"]["storage"]["claimName"]
    world.objects[ObjectKey("PersistentVolumeClaim", name)] = claim(name)
    return Simulation(world, **parts)
