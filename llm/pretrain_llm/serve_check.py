"""Whether a folder is whole and serves as the chat model it was trained as.

    python -m pretrain_llm.serve_check FOLDER

Runs before the server, in its image: standard library only. Leaves the error as the pod's
termination message and ends with BAD_INPUT, so that the run says why, instead of a server that
crashes for ever or answers with another tokenizer's words.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .artifacts import REMAKE, verified_manifest
from .contract import exit_codes
from .contract.results import TerminationMessage
from .errors import InputError, RunError, stage_error
from .termination import leave_message
from .tokenizer import CHAT_TEMPLATE_FILE, TOKENIZER_CONFIG, check

CONFIG = "config.json"

_FIELD = "spec.serving"


def check_folder(folder: Path) -> None:
    """Raises InputError where the folder cannot be served."""
    manifest = verified_manifest(folder, field=_FIELD)
    check(folder, manifest.tokenizer_fingerprint, "spec.tokenizer")
    architectures = _document(folder / CONFIG).get("architectures")
    if not architectures:
        raise _unfit("names no architecture", folder / CONFIG)
    settings = _document(folder / TOKENIZER_CONFIG)
    if not settings.get("chat_template") and not (folder / CHAT_TEMPLATE_FILE).is_file():
        raise InputError(
            "no chat template: the server could not answer a chat",
            field="spec.tokenizer",
            value=folder,
            remedy=f"Give the tokenizer a `chat_template` in {TOKENIZER_CONFIG}.",
        )


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _unfit(f"cannot be read: {error}", path) from error
    if not isinstance(document, dict):
        raise _unfit("is not an object", path)
    return document


def _unfit(problem: str, path: Path) -> InputError:
    return InputError(f"{path.name} {problem}", field=_FIELD, value=path, remedy=REMAKE)


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m pretrain_llm.serve_check FOLDER", file=sys.stderr)
        return exit_codes.BAD_INPUT
    try:
        check_folder(Path(arguments[0]))
    except (RunError, OSError) as error:
        failure = stage_error(error)
        print(f"serve_check: {failure}", file=sys.stderr)
        leave_message(TerminationMessage(error=failure))
        return failure.exit_code
    print(f"serve_check: {arguments[0]} is whole")
    return exit_codes.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
