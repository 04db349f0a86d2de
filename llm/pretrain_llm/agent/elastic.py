"""torch's elastic agent with our workers and rounds: its loop is kept, its processes are not.

SimpleElasticAgent's loop joins a round, starts the workers, watches them, and does so again. What
LocalElasticAgent would add is replaced, and so it is not the base (see workers.py):

_start_workers     forks warm, with torch's variables and ours
_monitor_workers   sleeps until something happens, tells faults before anything is stopped, and
                   waits for the whole run to finish, because a round can still break then
_stop_workers      kills at once: a broken round's workers have nothing left to say, but a stalled
                   round's where they stand
_shutdown          the same, whatever ended the loop
_exit_barrier      nothing: the coordinator has said that everybody has finished
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable
from typing import Any

from torch.distributed.elastic.agent.server.api import (
    RunResult,
    SimpleElasticAgent,
    WorkerGroup,
    WorkerSpec,
    WorkerState,
)

from ..contract import codec, environment, exit_codes, protocol
from ..contract.protocol import AgentEvent
from ..contract.results import StageError
from . import stacks
from .bell import Bell
from .link import Link
from .rendezvous import CoordinatorRendezvous
from .replicas import Replicas
from .settings import Settings
from .stop import StopRequest, StopRequestedError
from .worker_main import Launch
from .workers import Ending, Workers, write_pids

ROLE = "trainer"
LOOK_SECONDS = 0.5  # the bell rings earlier whenever there is news
UNLIMITED_RESTARTS = 1 << 30  # budgets are the operator's

logger = logging.getLogger(__name__)


class FinalWorkerError(Exception):
    """A worker ended with a code that a new process would end with too."""

    def __init__(self, error: StageError) -> None:
        super().__init__(str(error))
        self.error = error


class Agent(SimpleElasticAgent):
    def __init__(
        self,
        settings: Settings,
        link: Link,
        bell: Bell,
        stop: StopRequest,
        replicas: Replicas | None,
    ) -> None:
        # Every agent has as many workers: torch need not gather their numbers through the store.
        os.environ["TORCH_ELASTIC_WORKER_IDENTICAL"] = "1"
        rendezvous = CoordinatorRendezvous(settings, link, bell, stop)
        spec = WorkerSpec(
            role=ROLE,
            local_world_size=settings.local_world_size,
            rdzv_handler=rendezvous,
            entrypoint=settings.worker,
            max_restarts=UNLIMITED_RESTARTS,
            monitor_interval=0.001,  # _monitor_workers waits by itself; torch asks for more than 0
        )
        super().__init__(spec)
        self._settings = settings
        self._link = link
        self._bell = bell
        self._stop = stop
        self._replicas = replicas
        self._workers: Workers | None = None
        self._told_interval = 0

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        number, memory = self._link.standing.round, self._memory_variables(worker_group)
        skipped = codec.to_json(self._link.view.carried.skipped)
        launches = [
            Launch(
                rank=worker.global_rank,
                local_rank=worker.local_rank,
                function=self._settings.worker,
                variables={
                    **worker_variables(self._settings, worker_group, worker, number),
                    environment.SKIPPED: skipped,
                    **memory,
                },
            )
            for worker in worker_group.workers
        ]
        self._tell_interval()
        self._workers = Workers(launches)
        write_pids(self._settings.workers_file, number, launches, self._workers)
        return self._workers.pids

    def _memory_variables(self, worker_group: WorkerGroup) -> dict[str, str]:
        """Where the workers keep checkpoints in memory, and the one that they start from."""
        if self._replicas is None:
            return {}
        restored = self._replicas.enter(self._link.standing, worker_group.group_rank)
        found = {environment.MEMORY: str(self._replicas.root)}
        if restored:
            found[environment.RESTORE] = str(restored.generation)
            found[environment.RESTORE_SOURCE] = restored.source
        return found

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        workers = self._workers
        assert workers is not None
        workers.wait(LOOK_SECONDS, self._bell.fd)
        self._bell.clear()
        self._tell_interval()
        if any(not ending.is_orderly for ending in workers.endings):
            return self._failed(workers)
        if workers.all_ended:
            return self._ended(workers, worker_group)
        if self._stop.is_made:
            self._save_and_leave(workers)
        view = self._link.view
        if view.draining and view.round == self._link.standing.round:
            workers.terminate()
        return RunResult(state=WorkerState.HEALTHY)

    def _tell_interval(self) -> None:
        """The workers look into the file at each step."""
        steps = self._link.view.carried.cadence.interval_steps
        if steps and steps != self._told_interval:
            part = self._settings.interval_file.with_suffix(".part")
            part.write_text(str(steps))
            part.replace(self._settings.interval_file)
            self._told_interval = steps

    def _failed(self, workers: Workers) -> RunResult:
        """Raises FinalWorkerError."""
        self._tell_faults([ending for ending in workers.endings if not ending.is_orderly])
        for ending in workers.endings:
            if ending.exit_code in exit_codes.FINAL:
                raise FinalWorkerError(_final_error(ending))
        return RunResult(state=WorkerState.FAILED)

    def _tell_faults(self, endings: Iterable[Ending]) -> None:
        for ending in endings:
            self._link.add(AgentEvent(fault=ending.fault(self._link.standing.round)))

    def _ended(self, workers: Workers, worker_group: WorkerGroup) -> RunResult:
        """All workers ended in order: finished, or saved on somebody's request."""
        if any(ending.exit_code == exit_codes.SAVED for ending in workers.endings):
            self._link.stand(protocol.WAITING, saved=True)
            return RunResult(state=WorkerState.FAILED)  # torch's word for: join the next round
        if self._link.standing.state != protocol.FINISHED:
            self._link.stand(protocol.FINISHED)
        vanished = self._link.silent_seconds > self._settings.vanished_seconds
        if self._link.view.finished or vanished:
            done = {worker.global_rank: None for worker in worker_group.workers}
            return RunResult(state=WorkerState.SUCCEEDED, return_values=done)
        if self._stop.is_made:  # others may still save: 0 would say that the whole run is finished
            raise StopRequestedError(is_saved=True)
        return RunResult(state=WorkerState.HEALTHY)  # torch asks num_nodes_waiting() next

    def _save_and_leave(self, workers: Workers) -> None:
        """Lets the workers save, as long as the round holds. Raises StopRequestedError."""
        self._link.stand(protocol.LEAVING)
        workers.terminate()
        deadline = time.monotonic() + self._settings.save_seconds
        while not workers.all_ended and time.monotonic() < deadline and not self._is_broken():
            workers.wait(LOOK_SECONDS, self._bell.fd)
            self._bell.clear()
        # SIGTERM ends a worker that has not begun to train: it has nothing to save.
        lost = [e for e in workers.endings if not e.is_orderly and e.exit_code != -signal.SIGTERM]
        self._tell_faults(lost)
        raise StopRequestedError(is_saved=workers.all_ended and not lost)

    def _is_broken(self) -> bool:
        return bool(self._worker_group.spec.rdzv_handler.num_nodes_waiting())

    def _stop_workers(self, worker_group: WorkerGroup) -> None:  # noqa: ARG002
        view = self._link.view
        if view.stalled and view.round == self._link.standing.round:
            self._tell_stacks(view.round)
        self._shutdown()
        if self._replicas:
            self._replicas.settle()

    def _tell_stacks(self, round_number: int) -> None:
        """Where the workers stand: to the coordinator, and in full to the run's volume."""
        workers = self._workers
        assert workers is not None
        stood = stacks.collect(workers.pids_by_rank, workers.stack_files)
        paths = {
            worker.rank: self._settings.stacks_path(round_number, worker.rank) for worker in stood
        }
        for worker in stood:
            report = worker.report(round_number, paths[worker.rank])
            logger.info("worker %d stalled: %s", worker.rank, report)
            self._link.add(AgentEvent(stack=report))
        stacks.save(stood, paths)

    def _shutdown(self, *_how: object, **_how_long: object) -> None:
        if self._workers:
            self._tell_faults(self._workers.kill())

    def _exit_barrier(self) -> None:
        pass


def worker_variables(
    settings: Settings, group: WorkerGroup, worker: Any, round_number: int
) -> dict[str, str]:
    """torch's environment variables for one worker, and ours."""
    return {
        "RANK": str(worker.global_rank),
        "LOCAL_RANK": str(worker.local_rank),
        "GROUP_RANK": str(group.group_rank),
        "ROLE_RANK": str(worker.role_rank),
        "ROLE_NAME": ROLE,
        "WORLD_SIZE": str(worker.world_size),
        "LOCAL_WORLD_SIZE": str(settings.local_world_size),
        "GROUP_WORLD_SIZE": str(group.group_world_size),
        "ROLE_WORLD_SIZE": str(worker.role_world_size),
        "MASTER_ADDR": str(group.master_addr),
        "MASTER_PORT": str(group.master_port),
        "TORCHELASTIC_RESTART_COUNT": str(round_number),
        "TORCHELASTIC_MAX_RESTARTS": str(UNLIMITED_RESTARTS),
        "TORCHELASTIC_RUN_ID": settings.run,
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        environment.STACK_FILE: str(settings.scratch / f"stacks-{worker.global_rank}.txt"),
        environment.ROUND: str(round_number),
        environment.INTERVAL_FILE: str(settings.interval_file),
        environment.REPORT_SOCKET: str(settings.report_socket),
        environment.ERROR_FILE: str(settings.scratch / f"error-{worker.global_rank}.json"),
        **(_flight_recorder(settings, round_number) if settings.device == "cuda" else {}),
    }


def _flight_recorder(settings: Settings, round_number: int) -> dict[str, str]:
    """NCCL's record of the newest collectives: written where NCCL's own timeout comes first."""
    return {
        "TORCH_FR_BUFFER_SIZE": "2000",  # collectives, of each rank
        "TORCH_FR_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": str(settings.scratch / f"nccl-{round_number}-"),  # and the rank
    }


def _final_error(ending: Ending) -> StageError:
    code = ending.exit_code
    return ending.error or StageError(
        f"worker {ending.rank} ended with exit code {code}: {exit_codes.MEANINGS[code]}",
        "WorkerExit",
        code,
    )
