"""How agents end: asked to stop, with a final error, and without a coordinator."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager

from pretrain_llm.contract import codec, exit_codes, protocol, status
from pretrain_llm.contract.results import TerminationMessage

from .agent_world import World, eventually, is_alive, small_run


@contextmanager
def open_world(**shape: int) -> Iterator[World]:
    world = World(small_run(**shape))
    try:
        yield world
    finally:
        world.close()


def test_agent_asked_to_stop_all_save_and_only_it_leaves() -> None:
    with open_world(nodes=2) as world:
        before = world.stepping(above=10)
        leaving, staying = world.members()
        world.agents[leaving].send_signal(signal.SIGTERM)
        assert world.agents[leaving].wait(60) == exit_codes.SAVED

        after = world.seen(
            lambda s: s.broken and world.state(s, staying) == protocol.WAITING,
            "the other agent waits for a new round",
        )
        assert world.agents[staying].poll() is None
        assert after.incidents[-1].evidence == status.STOP_REQUESTED
        assert after.incidents[-1].agent == leaving
        assert after.latest_checkpoint
        assert before.progress
        assert after.latest_checkpoint.step >= before.progress.step
        assert after.progress
        assert after.latest_checkpoint.step == after.progress.step, "no step is lost"

        world.agents[staying].send_signal(signal.SIGTERM)
        assert world.agents[staying].wait(60) == exit_codes.SAVED, "also without workers"


def test_worker_refuses_its_input_agent_leaves_the_message_and_its_code() -> None:
    with open_world(nodes=1, devices_per_node=2) as world:
        world.stepping(above=5)
        (world.folder / "bad-input").touch()
        pids = world.worker_pids("pod-0")
        assert len(pids) == 2
        eventually(lambda: "[1] round 1 rank 1" in world.log("pod-0"), "lines carry their rank")
        world.kill_worker("pod-0", 0)

        assert world.agents["pod-0"].wait(60) == exit_codes.BAD_INPUT
        assert not any(is_alive(pid) for pid in (*pids, *world.worker_pids("pod-0")))
        text = (world.folder / "pod-0" / "termination-log").read_bytes()
        error = codec.from_json(TerminationMessage, text).error
        assert error
        assert (error.field, error.exit_code) == ("spec.data", exit_codes.BAD_INPUT)
        told = world.seen(lambda s: len(s.incidents) > 1, "the incident").incidents[-1]
        assert told.first_fault
        assert told.first_fault.error_kind == "InputError"


def test_agent_asked_to_stop_before_training_has_nothing_to_save() -> None:
    with open_world(nodes=1) as world:
        (world.folder / "deaf").touch()
        before = world.stepping()
        world.agents["pod-0"].send_signal(signal.SIGTERM)
        assert world.agents["pod-0"].wait(60) == exit_codes.SAVED
        after = world.seen(lambda s: s.broken, "the round is over")
        assert after.round == before.round
        assert after.incidents[-1].evidence == status.STOP_REQUESTED
        assert after.incidents[-1].first_fault is None


def test_agent_asked_to_stop_while_others_finish_does_not_say_that_all_have() -> None:
    with closing(World(small_run(nodes=1), vanished_seconds=600.0)) as world:
        world.stepping()
        world.coordinator.kill()  # so nobody says that the run is finished
        world.coordinator.wait()
        pids = world.worker_pids("pod-0")
        (world.folder / "finish").touch()
        eventually(lambda: not any(is_alive(pid) for pid in pids), "the workers have finished")
        world.agents["pod-0"].send_signal(signal.SIGTERM)
        assert world.agents["pod-0"].wait(30) == exit_codes.SAVED


def test_coordinator_gone_after_the_last_step_agent_ends_with_zero() -> None:
    with open_world(nodes=1) as world:
        world.stepping()
        world.coordinator.kill()
        world.coordinator.wait()
        (world.folder / "finish").touch()
        assert world.agents["pod-0"].wait(30) == exit_codes.OK
