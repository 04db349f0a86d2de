"""Peer (a): any failure of a pod deletes all of them and makes a new Job, as soon as it is seen.

What JobSet's failure policy `Recreate` and Kubeflow Trainer do, and quicker: they wait until the
old Job is gone before they make the new one, this loop does not (a pod on a lost node would keep
them waiting for as long as nobody removes the node). The new pods do wait for the old ones' nodes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from kubernetes import client, config, watch

from .measure import DETECTED, Event
from .peers import SYSTEM_LABEL, calls_for_recreate
from .trials import RECREATE


class RecreateLoop:
    """One at a time. `make` gives the manifest of the Job with a number."""

    def __init__(self, kubeconfig: str, namespace: str, make: Callable[[int], dict[str, Any]]):
        api = config.new_client_from_config(kubeconfig)
        self._core, self._batch = client.CoreV1Api(api), client.BatchV1Api(api)
        self._namespace, self._make = namespace, make
        self._number = 0
        self._is_stopped = threading.Event()
        self._lock = threading.Lock()  # a Job is replaced, or the loop stopped
        self._thread: threading.Thread | None = None
        self.events: list[Event] = []

    @property
    def job_name(self) -> str:
        return f"{RECREATE}-{self._number}"

    def start(self) -> None:
        self._is_stopped.clear()
        self._create()
        self._thread = threading.Thread(target=self._watch_for_ever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._lock:
            self._is_stopped.set()
            self._delete()
        if self._thread:
            self._thread.join()

    def _watch_for_ever(self) -> None:
        while not self._is_stopped.is_set():
            events = watch.Watch().stream(
                self._core.list_namespaced_pod,
                self._namespace,
                label_selector=f"{SYSTEM_LABEL}={RECREATE}",
                timeout_seconds=5,  # a look at whether to stop
            )
            for event in events:
                with self._lock:
                    self._seen(event["type"], event["object"])

    def _seen(self, change: str, pod: Any) -> None:
        if self._is_stopped.is_set():
            return
        if calls_for_recreate(change, pod, self.job_name):
            self.events.append(Event(time.time(), RECREATE, DETECTED))
            self._delete()
            self._create()

    def _create(self) -> None:
        self._number += 1
        self._batch.create_namespaced_job(self._namespace, self._make(self._number))

    def _delete(self) -> None:
        self._batch.delete_namespaced_job(
            self.job_name, self._namespace, propagation_policy="Background"
        )
