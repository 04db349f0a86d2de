"""Errors whose message is for the user of a run, and the exit code each one ends a pod with.

RunError
├── NonFiniteError      the loss or the gradient is no number         ERROR
├── InputError          the spec, or what it points to, is wrong      BAD_INPUT
└── DeviceMemoryError   the device ran out of memory                  OUT_OF_MEMORY
"""

from __future__ import annotations

from .contract import exit_codes
from .contract.results import StageError


class RunError(Exception):
    exit_code = exit_codes.ERROR

    def as_stage_error(self) -> StageError:
        return StageError(str(self), type(self).__name__, self.exit_code)


class InputError(RunError):
    """The user must change something: which field, what was found, and what to do."""

    exit_code = exit_codes.BAD_INPUT

    def __init__(self, message: str, *, field: str, value: object, remedy: str) -> None:
        super().__init__(message)
        self.field, self.value, self.remedy = field, value, remedy

    def __str__(self) -> str:
        return str(self.as_stage_error())

    def as_stage_error(self) -> StageError:
        return StageError(
            message=self.args[0],
            kind=type(self).__name__,
            exit_code=self.exit_code,
            field=self.field,
            value=str(self.value),
            remedy=self.remedy,
        )


class NonFiniteError(RunError):
    """The loss or the gradient norm of a step is no number."""

    def __init__(self, message: str, *, step: int) -> None:
        super().__init__(message)
        self.step = step

    def as_stage_error(self) -> StageError:
        return StageError(str(self), type(self).__name__, self.exit_code, step=self.step)


class DeviceMemoryError(RunError):
    exit_code = exit_codes.OUT_OF_MEMORY


def stage_error(error: BaseException) -> StageError:
    """What to tell the user of any exception."""
    if isinstance(error, RunError):
        return error.as_stage_error()
    if type(error).__name__ == "OutOfMemoryError":  # torch's, without the import
        return StageError(str(error), "OutOfMemoryError", exit_codes.OUT_OF_MEMORY)
    return StageError(str(error) or repr(error), type(error).__name__, exit_codes.ERROR)
