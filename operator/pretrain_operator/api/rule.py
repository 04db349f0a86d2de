"""The form of a rule, and the CEL that rules have in common."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_llm.contract.meshes import CONTEXT_BLOCK


@dataclass(frozen=True)
class Rule:
    """One `x-kubernetes-validations` entry."""

    name: str  # what tests and `config` call it
    path: str  # of the object that it is written at; empty: the root
    rule: str  # CEL, true where the object is valid
    message: str  # after the path; %s stands for the arguments
    arguments: tuple[str, ...] = ()  # CEL; the values found

    @property
    def message_expression(self) -> str:
        """CEL. `format`, since the API server has no bound for the cost of string(int) + text."""
        text = self.message.replace("'", "\\'")
        return f"'{text}'.format([{', '.join(f'dyn({item})' for item in self.arguments)}])"


INDICES = ", ".join(str(index) for index in range(16))
WORLD = "self.nodes.count * self.nodes.devicesPerNode"
MODEL_RANKS = (
    "self.parallelism.tensorParallel * self.parallelism.pipelineParallel"
    " * self.parallelism.contextParallel"
)


def cut_evenly(length: str) -> str:
    """CEL: whether a sequence divides among context-parallel ranks (contract.meshes)."""
    return (
        f"(self.parallelism.contextParallel == 1"
        f" || {length} % ({CONTEXT_BLOCK} * self.parallelism.contextParallel) == 0"
        f" && {length} % (2 * self.parallelism.contextParallel"
        " * self.parallelism.tensorParallel) == 0)"
    )


# A run has started once it has an attempt or an artifact; self.status is then oldSelf.status.
STARTED = (
    "has(oldSelf.status)"
    " && (has(oldSelf.status.attempt) && oldSelf.status.attempt > 0"
    " || has(oldSelf.status.artifacts) && size(oldSelf.status.artifacts) > 0)"
)


def unique(items: str) -> str:
    return f"{items}.all(a, {items}.exists_one(b, a.name == b.name))"


def names(items: str) -> str:
    return f"{items}.map(item, item.name)"
