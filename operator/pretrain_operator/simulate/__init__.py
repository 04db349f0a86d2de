"""A discrete-event simulation of a run under faults. Its figures are simulated, never measured.

    simulation(scenario, durations, trace) -> Result

What is real: `plan` with its fault table, budgets and stops, and the coordinator's ledger with its
rounds, leases, back-off and incidents. They are called, not copied, so a change of a rule changes
the figures. What is modelled: the clock, agents, pods and nodes, and how long each phase takes.

trace      faults: from CSV, or drawn from published shares
durations  what each phase takes, each with its source
stretch    how far undisturbed training has come
cluster    the Kubernetes objects that the operator sees
coordinator  the agents as the coordinator sees them
engine     the events, in order of time
result     where the wall time went
scenarios  Llama 3, the Scout-109B benchmark, any recipe
sensitivity  the result with each duration halved and doubled

The coordinator's ledger belongs to the pods' package, of which the operator may know only the
contract. `coordinator` is the one exception, written down in pyproject.toml: the ledger is pure and
imports only the standard library, and a simulation of recovery without it would be a copy of it.
"""

from .durations import Durations
from .engine import simulation
from .result import Result
from .scenarios import Scenario
from .trace import Fault, TraceError

__all__ = ["Durations", "Fault", "Result", "Scenario", "TraceError", "simulation"]
