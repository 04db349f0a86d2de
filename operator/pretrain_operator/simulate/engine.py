"""The events of a simulated run, in order of time. Time jumps over what is undisturbed.

    fault ─► workers end, or leases do ─► round broken ─► workers stopped ─► next round ─► restored
      ▲                                                                                       │
      └───────────────────────────────── training ◄── first step ◄────────────────────────────┘

Nodes that nothing happens to behave alike, so at most GROUPS agents are members of a round; each
fault finds a sound one as long as fewer than that are lost at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pretrain_llm.contract import protocol
from pretrain_llm.contract.reports import FaultReport

from ..api.spec import RunSpec
from .cluster import POLL_SECONDS, UNREACHABLE_SECONDS, Cluster, admitted
from .coordinator import REPORT_SECONDS, Agent, Coordinator
from .durations import Durations
from .result import CAUSES, Cause, Result
from .stretch import Stretch
from .trace import LAST_WORDS, Effect, Fault

GROUPS = 4
_RENEW_SECONDS = 2.0  # in which every agent reports at least once; leases are longer
_ECHO = "DistBackendError"
RoundKey = tuple[int, int]  # attempt and round


def simulation(
    spec: RunSpec,
    durations: Durations,
    faults: tuple[Fault, ...],
    *,
    total_steps: int,
    horizon_seconds: float,
    mtbf_seconds: float,
) -> Result:
    """Until `total_steps` are made or the horizon is reached. `mtbf_seconds` is for Daly only."""
    engine = _Engine(
        spec=spec,
        durations=durations,
        total_steps=total_steps,
        ends_at=horizon_seconds,
        interval_steps=durations.interval_steps(mtbf_seconds),
    )
    return engine.run(faults)


@dataclass
class _Engine:
    spec: RunSpec
    durations: Durations
    total_steps: int
    ends_at: float
    interval_steps: int
    now: float = 0.0  # seconds since the run was admitted
    cause: Cause | None = "Start"  # of the time that passes; None: training
    stretch: Stretch | None = None
    step: int = 0
    saved_step: int = 0
    is_over: bool = False
    hits: int = 0
    steps_lost: int = 0
    productive_seconds: float = 0.0
    stops: list[str] = field(default_factory=list)
    badput: dict[Cause, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    coordinator: Coordinator | None = None

    def __post_init__(self) -> None:
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._counted = 0  # events so far, and names of pods
        self._seen = (-1, False)  # round number, and whether it is broken
        self._renewed_at: float | None = None
        run = admitted("simulated", self.spec, self.now)
        self.cluster = Cluster(run, on_pod_gone=self._pod_gone, on_pod_asked=self._pod_asked)

    def run(self, faults: tuple[Fault, ...]) -> Result:
        for fault in faults:
            self._at(fault.seconds, lambda fault=fault: self._hit(fault))  # type: ignore[misc]
        self._start_attempt()
        while not self.is_over and self.now < self.ends_at:
            self._advance()
        self._end_stretch(lost=False)
        return self._result()

    # Time

    def _at(self, time: float, act: Callable[[], None]) -> None:
        self._counted += 1
        heapq.heappush(self._queue, (time, self._counted, act))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._at(self.now + seconds, act)

    def _advance(self) -> None:
        """To the next event, or by one report interval while leases or back-offs run."""
        is_quiet = self.coordinator is None or self.coordinator.is_settled(self.now)
        due = self._queue[0][0] if self._queue else self.ends_at
        due = min(due, self.ends_at)
        self._pass_time(due if is_quiet else min(due, self.now + REPORT_SECONDS))
        while self._queue and self._queue[0][0] <= self.now and not self.is_over:
            heapq.heappop(self._queue)[2]()
        if self.coordinator is not None:
            self.coordinator.tick(self.now, with_reports=self._is_renewal_due(is_quiet=is_quiet))
            self._react()

    def _is_renewal_due(self, *, is_quiet: bool) -> bool:
        """Leases do not run over a jump of time: rounds.py takes it for a stall of its clock."""
        if is_quiet:
            self._renewed_at = None
            return False
        if self._renewed_at is not None and self.now < self._renewed_at + _RENEW_SECONDS:
            return False
        self._renewed_at = self.now
        return True

    def _pass_time(self, until: float) -> None:
        if self.cause is not None:
            self.badput[self.cause] += until - self.now
        self.now = until

    # Attempts

    def _start_attempt(self) -> None:
        self.cluster.operate(None, self.now)
        nodes = self.spec.nodes
        members = min(nodes.count, GROUPS)
        self.coordinator = Coordinator(
            run="simulated",
            attempt=self.cluster.status.attempt,
            total_steps=self.total_steps,
            members_wanted=members,
            spares=nodes.spares,
            stall=self.spec.recovery.stall,
            started_at=self.now,
        )
        self._seen = (-1, False)
        for slot in range(members + nodes.spares):
            self._join(slot, self.durations.start_seconds)

    def _join(self, slot: int, seconds: float) -> None:
        """A pod for `slot` on a fresh node; its agent waits after `seconds`."""
        assert self.coordinator is not None
        self._counted += 1
        agent = Agent(f"pod-{slot}-{self._counted}", slot, f"node-{self._counted}")
        self.cluster.add_pod(agent.name, agent.node, slot)
        self.coordinator.agents[agent.name] = agent

        def wait() -> None:
            if self._is_here(agent):
                agent.state = protocol.WAITING
                self._report(agent)

        self._after(seconds, wait)

    def _stop(self) -> None:
        """The operator has given up. Pods go; a person looks, and changes the spec."""
        assert self.coordinator is not None
        self.stops.append(self.cluster.message)
        for name in list(self.coordinator.agents):
            self.cluster.remove_pod(name)
        self.coordinator = None
        self.cause = "Stopped"
        self._after(self.durations.human_seconds, self._go_on)

    def _go_on(self) -> None:
        self.cluster.edit()
        self.cause = "Start"
        self._start_attempt()

    # What the coordinator and the operator say

    def _react(self) -> None:
        coordinator = self.coordinator
        if coordinator is None or coordinator.round is None:
            return
        current = coordinator.round
        seen = (current.number, current.broken is not None)
        if seen == self._seen:
            return
        self._seen = seen
        if current.broken is None:
            self._formed()
        else:
            self._broken()
        self._operate()

    def _operate(self) -> None:
        if self.coordinator is None:
            return
        self.cluster.operate(self.coordinator.document(self.now), self.now)
        if self.cluster.is_stopped:
            self._stop()

    def _broken(self) -> None:
        self._end_stretch(lost=True)
        self._resume_from(self.saved_step)  # a drain may not have saved in time
        self.cause = "Reschedule"
        assert self.coordinator is not None
        for agent in self.coordinator.members:
            if agent.state == protocol.RUNNING:
                self._after(self.durations.stop_seconds, lambda a=agent: self._stopped(a))  # type: ignore[misc]
            elif agent.state == protocol.LEAVING:
                self._left(agent)

    def _stopped(self, agent: Agent) -> None:
        if self._is_here(agent) and agent.state == protocol.RUNNING:
            agent.state = protocol.WAITING
            self._report(agent)

    def _formed(self) -> None:
        assert self.coordinator is not None
        key = self._key
        assert key is not None
        if self.cause != "Start":
            self.cause = "Restore"
        restore = self.coordinator.restore
        self._resume_from(restore.generation.step if restore else self.saved_step)
        self.coordinator.entered()
        for agent in self.coordinator.members:
            agent.state, agent.round, agent.saved = protocol.RUNNING, key[1], False
            self._report(agent)
        seconds = self.durations.restore_seconds
        if restore is not None:
            seconds = self.durations.memory_restore_seconds(fetched=any(restore.sources))
        broken = next((a for a in self.coordinator.members if a.broken_device), None)
        if broken is not None:
            seconds = min(self.durations.fails_again_seconds, seconds)
            self._after(seconds, lambda: self._fail(broken, key, "Device"))
            return
        self._after(seconds, lambda: self._restored(key))

    def _restored(self, key: RoundKey) -> None:
        if not self._is_moving(key):
            return
        assert self.coordinator is not None
        self.coordinator.restored(self.step, self.now)
        if self.cause != "Start":
            self.cause = "FirstStep"
        self._after(self.durations.first_step_extra_seconds, lambda: self._train(key))

    def _train(self, key: RoundKey) -> None:
        if not self._is_moving(key):
            return
        assert self.coordinator is not None
        self.cause = None
        self.stretch = Stretch(
            since=self.now,
            resumed_step=self.step,
            saved_step=self.saved_step,
            step_seconds=self.durations.step_seconds,
            interval_steps=self.interval_steps,
            stall_seconds=self.durations.stall_seconds,
            save_seconds=self.durations.save_seconds,
            memory_steps=self.durations.memory_interval_steps,
            memory_stall_seconds=self.durations.memory_stall_seconds,
            memory_copy_seconds=self.durations.memory_copy_seconds,
            is_from_memory=self.coordinator.restore is not None,
        )
        self._after(self.durations.step_seconds, lambda: self._first_step(key))
        self._at(self.stretch.ends_at(self.total_steps), lambda: self._finish(key))

    def _first_step(self, key: RoundKey) -> None:
        if self._is_moving(key) and self.stretch is not None:
            self._tell_step(self.step + 1)
            self._operate()

    def _finish(self, key: RoundKey) -> None:
        self.is_over = self._is_running(key) and self.stretch is not None

    # Faults

    def _hit(self, fault: Fault) -> None:
        """Faults that find no run, or no sound node, hit nothing."""
        victim = self._victim(fault.node)
        if victim is None or self.coordinator is None:
            return
        self.hits += 1
        if fault.effect == "Node":
            self._lose_node(victim)
        elif fault.effect == "Drain":
            self._drain(victim)
        else:
            self._break_worker(victim, fault)

    def _victim(self, node: int) -> Agent | None:
        members = self.coordinator.members if self.coordinator else []
        sound = [agent for agent in members if agent.is_sound]
        return sound[node % len(sound)] if sound else None

    def _break_worker(self, victim: Agent, fault: Fault) -> None:
        if fault.effect == "Device":
            victim.broken_device = True
            self._after(self.durations.health_seconds, lambda: self._evict(victim))
        if (key := self._running_key(victim)) is not None:
            self._interrupt()
            seconds = self.durations.exit_detect_seconds
            if fault.effect == "Hang":  # the coordinator's patience may end before the watchdog's
                victim.hung_in = key[1]
                seconds = self.durations.watchdog_seconds
            self._after(seconds, lambda: self._fail(victim, key, fault.effect))

    def _interrupt(self) -> None:
        """No collective ends any more."""
        self._end_stretch(lost=True)
        self.cause = "Start" if self.cause == "Start" else "Detect"

    def _fail(self, agent: Agent, key: RoundKey, effect: Effect) -> None:
        """A worker of that round has ended, if the round has not."""
        if self.coordinator is None or not self._is_running(key) or not self._is_here(agent):
            return
        said = LAST_WORDS[effect]
        self.coordinator.failed(
            agent, self.now, replace(said, round=key[1], rank=agent.slot, time=self.now)
        )
        self._react()

    def _lose_node(self, victim: Agent) -> None:
        is_running = self._running_key(victim) is not None
        self._report(victim)  # its last
        victim.silent = True
        if is_running:
            self._interrupt()

        def not_ready() -> None:
            self.cluster.lose_node(victim.node, self.now)
            self._after(UNREACHABLE_SECONDS, self._operate)

        self._after(self.durations.node_not_ready_seconds, not_ready)

    def _evict(self, agent: Agent) -> None:
        """By the health daemon. Its peers' collectives end with its workers."""
        if self.coordinator is None or not self._is_here(agent):
            return
        self.cluster.take_pod(agent.name, self.now, "EvictionByEvictionAPI")
        key = self._running_key(agent)
        if key is None:
            self._left(agent)
            return
        agent.state = protocol.LEAVING
        self._report(agent)
        self._after(self.durations.exit_detect_seconds, lambda: self._echo(key, agent))

    def _echo(self, key: RoundKey, of: Agent) -> None:
        if self.coordinator is None or not self._is_running(key):
            return
        peer = next((a for a in self.coordinator.members if a is not of and not a.silent), None)
        if peer is not None:
            report = FaultReport(key[1], peer.slot, self.now, exit_code=1, error_kind=_ECHO)
            self.coordinator.failed(peer, self.now, report)
            self._react()

    def _drain(self, victim: Agent) -> None:
        """All save together at the end of the step, if they make it before the ledger's limit."""
        key = self._running_key(victim)
        if key is None or self.stretch is None:
            self._evict(victim)
            return
        self.cluster.take_pod(victim.name, self.now, "EvictionByEvictionAPI")
        reached = self.stretch.position(self.now).step
        victim.state = protocol.LEAVING
        self._report(victim)
        self._end_stretch(lost=False)
        self.cause = "Drain"
        seconds = self.durations.save_seconds + self.durations.stall_seconds
        self._after(seconds, lambda: self._drained(victim, key, reached))

    def _drained(self, victim: Agent, key: RoundKey, reached: int) -> None:
        if self.coordinator is None or not self._is_running(key):
            return
        self.saved_step = reached
        self.coordinator.saved(reached, self.durations.stall_seconds, self.now)
        for agent in self.coordinator.members:
            agent.saved = True
            if agent.state == protocol.RUNNING and not agent.silent:
                agent.state = protocol.WAITING
                self._report(agent)
        self._left(victim)

    def _left(self, agent: Agent) -> None:
        """Its last word; Kubernetes makes another pod for its slot."""
        agent.state = protocol.LEFT
        self._report(agent)
        self.cluster.remove_pod(agent.name)
        self._pod_gone(agent.name)

    def _pod_asked(self, name: str) -> None:
        """To leave an excluded node: of what led to it the operator hears at its next look."""
        agent = self.coordinator.agents.get(name) if self.coordinator else None
        if agent is not None:
            self._after(POLL_SECONDS, lambda: self._evict(agent))

    def _pod_gone(self, name: str) -> None:
        if self.coordinator is None:
            return
        agent = self.coordinator.agents.pop(name, None)
        if agent is not None:
            self._join(agent.slot, self.durations.replacement_seconds)

    # Facts

    @property
    def _key(self) -> RoundKey | None:
        """Of the round that runs."""
        current = self.coordinator.round if self.coordinator else None
        if self.coordinator is None or current is None or current.broken is not None:
            return None
        return (self.coordinator.attempt, current.number)

    def _is_running(self, key: RoundKey) -> bool:
        return self._key == key

    def _is_moving(self, key: RoundKey) -> bool:
        return self._is_running(key) and not (self.coordinator and self.coordinator.is_hung)

    def _running_key(self, agent: Agent) -> RoundKey | None:
        """Of the round that runs, if the agent is in it."""
        key = self._key
        return key if key is not None and self._is_here(agent) and agent.round == key[1] else None

    def _is_here(self, agent: Agent) -> bool:
        known = self.coordinator.agents if self.coordinator else {}
        return known.get(agent.name) is agent and not agent.silent

    def _report(self, agent: Agent) -> None:
        if self.coordinator is not None:
            self.coordinator.report(agent, self.now)

    def _tell_step(self, step: int) -> None:
        if self.coordinator is not None:
            self.coordinator.stepped(step, self.durations.step_seconds, self.now)

    def _end_stretch(self, *, lost: bool) -> None:
        """Books the time since training went on; `lost`: back to the newest on the volume, until
        a round is to start from memory.
        """
        stretch = self.stretch
        if stretch is None:
            return
        self.stretch = None
        reached = stretch.position(self.now)
        if reached.step > stretch.resumed_step:
            self._tell_step(reached.step)
        kept = reached.saved_step if lost else reached.step
        trained = self.now - stretch.since - reached.stalled_seconds
        kept_seconds = (kept - stretch.resumed_step) * self.durations.step_seconds
        self.productive_seconds += kept_seconds
        self.badput["CheckpointStall"] += reached.stalled_seconds
        self.badput["LostSteps"] += trained - kept_seconds
        self.steps_lost += reached.step - kept
        is_saved = reached.saved_step > self.saved_step
        self.step, self.saved_step = kept, reached.saved_step
        if self.coordinator is None:
            return
        if is_saved:
            self.coordinator.saved(self.saved_step, self.durations.stall_seconds, self.now)
        self.coordinator.kept(reached.memory_step, reached.copied_step, self.now)

    def _resume_from(self, step: int) -> None:
        """What was booked as kept after it is run again, what was booked as lost before is not."""
        seconds = (step - self.step) * self.durations.step_seconds
        self.productive_seconds += seconds
        self.badput["LostSteps"] -= seconds
        self.steps_lost -= step - self.step
        self.step = step

    def _result(self) -> Result:
        return Result(
            wall_seconds=self.now,
            productive_seconds=self.productive_seconds,
            badput_seconds=self.badput,
            steps=self.step,
            finished=self.is_over,
            steps_lost=self.steps_lost,
            interval_steps=self.interval_steps,
            faults=self.hits,
            stops=tuple(self.stops),
            attempts=self.cluster.status.attempt,
            incidents=tuple(self.cluster.incidents.values()),
        )
