"""See the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import record, table
from .book import FOLDER, entries, script_entries

_README = FOLDER / "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="hack.recipes", description="The recipes' own tools.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table").add_argument("--check", action="store_true")
    dry = commands.add_parser("dry-run")
    dry.add_argument("names", nargs="*", help="default: those that the record lacks")
    dry.add_argument("--python", required=True, help="of the training environment")
    given = parser.parse_args()
    if given.command == "table":
        _table(_README, is_check=given.check)
    else:
        record.dry_run(given.python, given.names or record.missing(record.read()))


def _table(path: Path, *, is_check: bool) -> None:
    text = table.readme([*entries(), *script_entries()])
    if not is_check:
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        sys.exit(f"{path} is stale: run `make recipes`")


if __name__ == "__main__":
    main()
