"""What the pod's environment and the run's configuration say to the agent."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..contract import config, environment
from ..contract.layout import Layout
from ..errors import InputError

DEFAULT_GRACE_SECONDS = 30  # Kubernetes' own default
# Where a cluster has no room for a new coordinator, accelerators should not wait for it for ever.
VANISHED_SECONDS = 1800.0
GRACE_MARGIN_SECONDS = 3.0  # for the agent itself to leave
WORKER = "pretrain_llm.training.worker:main"
PRELOAD = "pretrain_llm.training.preload"
SCRIPT_WORKER = "pretrain_llm.agent.command:main"
SCRIPT_PRELOAD = "pretrain_llm.agent.command"


@dataclass(frozen=True)
class MemorySettings:
    """Where checkpoints in memory are kept, and served to the run's other agents."""

    root: Path
    host: str  # at which they reach this pod
    port: int
    token: str


@dataclass(frozen=True)
class Settings:
    run: str
    attempt: int
    agent: str  # the pod's name
    incarnation: str
    slot: int
    node: str
    coordinator: str  # host:port
    store_host: str
    store_port: int
    local_world_size: int  # workers of this agent
    device: str  # cpu | cuda
    layout: Layout
    scratch: Path
    save_seconds: float  # that workers have after a SIGTERM
    vanished_seconds: float  # after its work, the agent waits this long for a lost coordinator
    worker: str  # module:function
    preload: str  # module that the fork server imports
    memory: MemorySettings | None = None  # None: spec.checkpoint.memory is not set

    @property
    def report_socket(self) -> Path:
        return self.scratch / "reports.sock"

    @property
    def workers_file(self) -> Path:
        return self.scratch / "workers.json"

    @property
    def interval_file(self) -> Path:
        return self.scratch / "save-interval"

    def stacks_path(self, round_number: int, rank: int) -> PurePosixPath:
        """On the run's volume."""
        return self.layout.stacks / f"{self.attempt}-{round_number}-{rank}.txt"


def settings(
    variables: Mapping[str, str],
    *,
    worker: str | None = None,
    preload: str | None = None,
    vanished_seconds: float = VANISHED_SECONDS,
    memory_port: int = environment.MEMORY_PORT,
) -> Settings:
    """Raises InputError, OSError, codec.DecodeError."""
    run = config.load_any(variables.get(environment.CONFIG, environment.CONFIG_PATH))
    name = _required(variables, environment.POD_NAME)
    grace_seconds = DEFAULT_GRACE_SECONDS
    if variables.get(environment.GRACE_SECONDS):
        grace_seconds = _number(variables, environment.GRACE_SECONDS)
    store_host, store_port = _address(variables, environment.STORE)
    coordinator_host, coordinator_port = _address(variables, environment.COORDINATOR)
    is_script = isinstance(run, config.ScriptRunConfig)
    return Settings(
        run=run.run,
        attempt=_number(variables, environment.ATTEMPT),
        agent=name,
        incarnation=f"{variables.get(environment.POD_UID, name)}/{uuid.uuid4().hex[:8]}",
        slot=_number(variables, environment.SLOT),
        node=variables.get(environment.NODE_NAME, ""),
        coordinator=f"{coordinator_host}:{coordinator_port}",
        store_host=store_host,
        store_port=store_port,
        local_world_size=run.nodes.devices_per_node,
        device=run.nodes.device,
        layout=run.layout,
        scratch=scratch(variables),
        save_seconds=max(1.0, grace_seconds - GRACE_MARGIN_SECONDS),
        vanished_seconds=vanished_seconds,
        worker=worker or (SCRIPT_WORKER if is_script else WORKER),
        preload=preload or (SCRIPT_PRELOAD if is_script else PRELOAD),
        memory=_memory(variables, memory_port) if run.checkpoint.memory else None,
    )


def _memory(variables: Mapping[str, str], port: int) -> MemorySettings:
    return MemorySettings(
        root=Path(variables.get(environment.MEMORY) or environment.MEMORY_PATH),
        host=_required(variables, environment.POD_IP),
        port=port,
        token=_required(variables, environment.MEMORY_TOKEN),
    )


def scratch(variables: Mapping[str, str]) -> Path:
    return Path(variables.get(environment.SCRATCH) or environment.SCRATCH_PATH)


def _required(variables: Mapping[str, str], name: str) -> str:
    if value := variables.get(name):
        return value
    raise InputError(
        "a training pod needs this variable",
        field=name,
        value=variables.get(name),
        remedy="Set it in the pod's environment, as the operator's Job does.",
    )


def _number(variables: Mapping[str, str], name: str) -> int:
    value = _required(variables, name)
    if value.isdecimal():
        return int(value)
    raise InputError(
        "expected a number", field=name, value=value, remedy="Set it to a number, 0 or more."
    )


def _address(variables: Mapping[str, str], name: str) -> tuple[str, int]:
    host, _, port = _required(variables, name).rpartition(":")
    if host and port.isdecimal():
        return host, int(port)
    raise InputError(
        "expected host:port",
        field=name,
        value=variables[name],
        remedy="Set it to the coordinator's Service and port.",
    )
