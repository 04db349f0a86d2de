"""Walks a run through its stages, saying for each pod what a kubelet would have said."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from pretrain_llm.contract import codec
from pretrain_llm.contract.reports import SavedReport
from pretrain_llm.contract.results import StageError, StageResult, TerminationMessage
from pretrain_llm.contract.status import AgentStatus, FirstStep, Progress, StatusDocument
from tests.integration.harness import ROOT, Api, Coordinators, Object, eventually

TOTAL_STEPS = 240  # of recipes/demo.yaml


def demo_run(namespace: str, name: str = "demo") -> Object:
    """The demo's recipe in a namespace of the test's own."""
    body: Object = yaml.safe_load((ROOT / "recipes" / "demo.yaml").read_text())
    body["metadata"] = {"name": name, "namespace": namespace}
    return body


def claim(namespace: str, name: str = "demo") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def volume(namespace: str, name: str = "demo") -> Object:
    """For the claim of this name alone: the scheduler places no pod whose claim is unbound."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}.{name}"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "10Gi"},
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": namespace, "name": name},
        },
    }


@dataclass
class Walk:
    """One run, and its stand-ins."""

    api: Api
    coordinators: Coordinators
    namespace: str
    name: str = "demo"
    coordinator_started_at: float = field(default_factory=time.time)

    def begin(self, **spec: Any) -> None:
        """Makes the claim and the run; `spec` goes over the recipe's."""
        self.provide_volume()
        self.api.create(claim(self.namespace))
        body = demo_run(self.namespace, self.name)
        self.api.create({**body, "spec": {**copy.deepcopy(body["spec"]), **spec}})

    def provide_volume(self, name: str = "demo") -> None:
        self.api.kubectl("create", "-f", "-", stdin=json.dumps(volume(self.namespace, name)))

    # What is seen

    @property
    def run(self) -> Object:
        found = self.api.get("PretrainRun", self.namespace, self.name)
        assert found is not None, "the run is gone"
        return found

    @property
    def status(self) -> Object:
        status: Object = self.run.get("status", {})
        return status

    def condition(self, kind: str = "Succeeded") -> Object:
        conditions = self.status.get("conditions", ())
        return next((item for item in conditions if item["type"] == kind), {})

    def until_state(self, state: str, seconds: float = 30.0) -> None:
        def seen() -> bool:
            return self.condition().get("reason") == state

        try:
            eventually(seen, state, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; the summary is {self.condition()}") from None

    def job(self, name: str) -> Object | None:
        return self.api.get("Job", self.namespace, f"{self.name}-{name}")

    def pods(self, component: str) -> list[Object]:
        """Those that are on a node, and have not ended."""
        found = self.api.list("Pod", self.namespace, run=self.name, component=component)
        return [
            pod
            for pod in found
            if pod["spec"].get("nodeName")
            and pod["status"].get("phase") not in ("Succeeded", "Failed")
            and not pod["metadata"].get("deletionTimestamp")
        ]

    def until_pods(self, component: str, count: int = 1) -> list[Object]:
        def enough() -> list[Object] | None:
            found = self.pods(component)
            return found if len(found) == count else None

        return eventually(enough, f"{count} pods of {component}")

    def reasons_of_events(self) -> set[str]:
        return {event["reason"] for event in self.api.list("Event", self.namespace)
                if event["involvedObject"]["kind"] == "PretrainRun"}  # fmt: skip

    # What a kubelet says

    def start(self, component: str, count: int = 1) -> None:
        for pod in self.until_pods(component, count):
            container = _container(pod, {"running": {"startedAt": _now()}}, ready=True)
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": _now()}
            conditions = [*pod["status"].get("conditions", ()), ready]
            self.api.put_status(
                pod, phase="Running", containerStatuses=[container], conditions=conditions
            )

    def end(self, component: str, count: int = 1, *, code: int = 0, message: str = "") -> None:
        for pod in self.until_pods(component, count):
            self.end_pod(pod, code=code, message=message)

    def end_pod(self, pod: Object, *, code: int = 0, message: str = "") -> None:
        terminated = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "message": message,
            "startedAt": _now(),
            "finishedAt": _now(),
        }
        container = _container(pod, {"terminated": terminated}, ready=False)
        phase = "Failed" if code else "Succeeded"
        self.api.put_status(pod, phase=phase, containerStatuses=[container])

    def finish(self, component: str, stage: str, **result: Any) -> None:
        """A stage's pod that ends well."""
        made = StageResult(stage, f"/workspace/{stage}", f"sha256:{stage}", **result)
        self.end(component, message=codec.to_json(TerminationMessage(result=made)))

    def fail(self, component: str, error: StageError) -> None:
        message = codec.to_json(TerminationMessage(error=error))
        self.end(component, code=error.exit_code, message=message)

    # What a coordinator says

    def says(self, step: int, **changes: Any) -> None:
        now = time.time()
        progress = Progress(step, TOTAL_STEPS, 8.0 - step / 100, 8.3, step * 4096, 9000.0, 0.4, now)
        fields: Object = {
            "attempt": self.status.get("attempt", 1),
            "time": now,
            "started_at": self.coordinator_started_at,
            "round": 1,
            "broken": False,
            "agents": tuple(
                AgentStatus(f"{self.name}-train-1-{slot}", slot, "", "Running", now, slot)
                for slot in range(2)
            ),
            "progress": progress,
            "first_step": FirstStep(1, self.coordinator_started_at),
            "latest_checkpoint": SavedReport(step - step % 20, "/c", 1, now, 0.1),
        }
        document = StatusDocument(self.name, **{**fields, **changes})
        self.coordinators.documents[f"{self.namespace}/{self.name}"] = document

    # Stages

    def to_training(self, **spec: Any) -> None:
        """From nothing to a run that trains at step 40."""
        self.begin(**spec)
        self.finish("data", "Data")
        self.start("coordinator")
        self.start("training", 2)
        self.says(40)
        self.until_state("Training")

    def finish_training(self) -> None:
        self.says(TOTAL_STEPS, finished=True)
        self.end("training", 2)


def _container(pod: Object, state: Object, *, ready: bool) -> Object:
    declared = pod["spec"]["containers"][0]
    return {
        "name": declared["name"],
        "image": declared["image"],
        "imageID": "",
        "ready": ready,
        "restartCount": 0,
        "state": state,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
