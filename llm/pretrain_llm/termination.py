"""The last word of a pod: what the kubelet copies into its status, in as many bytes as it keeps.

Whatever a program ends with fits: a verdict that were refused for its length would be lost, and
the pod would end with another exit code than the one that says what to do. Standard library only.
"""

from __future__ import annotations

import bisect
import json
import os
from dataclasses import asdict, replace

from .contract import codec, environment
from .contract.results import MAX_MESSAGE_BYTES, StageError, StageResult, TerminationMessage

_CUT = "…"


def leave_message(message: TerminationMessage) -> None:
    """Writes what fits of the message. Raises OSError; ValueError as `fitted_result`."""
    error, result = message.error, message.result
    fits = TerminationMessage(
        error=fitted_error(error) if error else None,
        result=fitted_result(result) if result else None,
    )
    path = os.environ.get(environment.TERMINATION_LOG, environment.TERMINATION_LOG_PATH)
    with open(path, "wb") as file:
        file.write(encoded(fits))


def encoded(message: TerminationMessage) -> bytes:
    """JSON that spends 3 bytes on a Chinese character, where escapes would take 6."""
    text = json.dumps(codec.encode(message), ensure_ascii=False, separators=(",", ":"))
    # A file name that is not UTF-8 comes as lone surrogates: written as JSON's own escapes.
    return text.encode("utf-8", "backslashreplace")


def fitted_error(error: StageError) -> StageError:
    """The error with its longest texts cut, all to the same length, the greatest that fits."""
    longest = bisect.bisect(
        range(MAX_MESSAGE_BYTES + 1), False, key=lambda length: not _fits(_cut(error, length))
    )
    return _cut(error, longest - 1)


def fitted_result(result: StageResult) -> StageResult:
    """The result without the last of its metrics, where they are too many.

    Raises ValueError where the rest alone is too long: an artifact's path must not be cut.
    """
    metrics = list(result.metrics.items())
    while not _fits(fits := replace(result, metrics=dict(metrics))):
        if not metrics:
            raise ValueError(f"path: {result.path!r} is too long for a termination message")
        metrics.pop()
    return fits


def _cut(error: StageError, characters: int) -> StageError:
    texts = {name: text for name, text in asdict(error).items() if isinstance(text, str)}
    return replace(
        error,
        **{
            name: text if len(text) <= characters else text[:characters] + _CUT
            for name, text in texts.items()
        },
    )


def _fits(outcome: StageError | StageResult) -> bool:
    if isinstance(outcome, StageError):
        return len(encoded(TerminationMessage(error=outcome))) <= MAX_MESSAGE_BYTES
    return len(encoded(TerminationMessage(result=outcome))) <= MAX_MESSAGE_BYTES
