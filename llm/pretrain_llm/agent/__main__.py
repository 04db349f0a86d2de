"""python -m pretrain_llm.agent: PID 1 of a training pod. docs/rounds.md tells what it does.

Exit codes: 0 the run is finished; SAVED asked to stop, and nothing was lost; one of
exit_codes.FINAL with a termination message where a new process would end the same way; else ERROR.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback

from ..contract import environment, exit_codes, protocol
from ..contract.protocol import AgentEvent
from ..contract.reports import WorkerReport
from ..contract.results import StageError, TerminationMessage
from ..errors import stage_error
from ..termination import leave_message
from . import fork_server, inbox, init
from . import settings as configuration
from .bell import Bell
from .link import Link
from .replicas import Replicas
from .settings import Settings
from .stop import StopRequest, StopRequestedError

LAST_WORD_SECONDS = 3.0  # to tell the coordinator


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pretrain_llm.agent", description=__doc__)
    parser.add_argument("--worker", help="module:function; default: by the engine")
    parser.add_argument("--preload", help="module; default: by the engine")
    parser.add_argument("--vanished-seconds", type=float, default=configuration.VANISHED_SECONDS)
    parser.add_argument("--memory-port", type=int, default=environment.MEMORY_PORT)
    return parser.parse_args(argv)


def main() -> int:
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        settings = configuration.settings(
            os.environ,
            worker=options.worker,
            preload=options.preload,
            vanished_seconds=options.vanished_seconds,
            memory_port=options.memory_port,
        )
    except Exception as error:
        return _gave_up(stage_error(error))
    bell = Bell()
    return run(settings, bell, Link(settings, bell))


def run(settings: Settings, bell: Bell, link: Link) -> int:
    """From the first report to the last word."""
    last_state = protocol.LEFT
    try:
        stop = StopRequest(bell)
        fork_server.start(settings.preload)
        link.start()
        train(settings, bell, link, stop)
        last_state = protocol.FINISHED
        return exit_codes.OK
    except StopRequestedError as stopped:
        last_state = _last_state(link)
        return exit_codes.SAVED if stopped.is_saved else exit_codes.ERROR
    except Exception as error:
        traceback.print_exc()
        final = getattr(error, "error", None)  # of a worker, whose fault is told already
        last_state = protocol.LEFT if final else _last_state(link)
        return _gave_up(final or stage_error(error))
    finally:
        link.close(last_state, LAST_WORD_SECONDS)


def _last_state(link: Link) -> str:
    """An agent whose workers have finished is not missed; one that fails while they run is lost,
    and must not look as if it had been asked to leave."""
    state = link.standing.state
    return state if state in (protocol.FINISHED, protocol.RUNNING) else protocol.LEFT


def train(settings: Settings, bell: Bell, link: Link, stop: StopRequest) -> None:
    """Returns once the run is finished. Raises StopRequestedError, elastic.FinalWorkerError."""
    replicas = None
    if settings.memory:
        replicas = Replicas(settings.memory, link, settings.local_world_size)
        replicas.start()
        link.listen(replicas.wake)
    inbox.start(settings.report_socket, lambda report: _take(report, link, replicas))
    from .elastic import Agent  # imports torch: the fork server does so at the same time

    fork_server.wait_until_warm()
    stop.is_preparing = False
    Agent(settings, link, bell, stop, replicas).run()


def _take(report: WorkerReport, link: Link, replicas: Replicas | None) -> None:
    """What every worker says of memory is the agent's own business; rank 0 says it for the run."""
    if report.memory_saved and replicas:
        replicas.wake()
    if report.memory_saved is None or report.rank == 0:
        link.add(AgentEvent(worker=report))


def _gave_up(error: StageError) -> int:
    print(f"agent: {error}", file=sys.stderr)
    leave_message(TerminationMessage(error=error))
    return error.exit_code


if __name__ == "__main__":
    if os.getpid() == 1:
        init.split()
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking torch down in order would take a second of the grace period
