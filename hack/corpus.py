#!/usr/bin/env python3
"""The demo's corpus: the Python and PostgreSQL manuals of a Debian release, as JSON Lines.

    hack/corpus.py OUT_DIR

Unpacks two documentation packages without installing them, writes one file per source with
`id`, `text` and `metadata.source` (19 MB in all), and keeps the result in
${PRETRAIN_CACHE:-~/.cache/pretrain-operator}/corpus. Licences: PSF and PostgreSQL, both permissive.
Standard library only; needs apt-get and dpkg-deb, and no root.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

VERSION = "1"  # of the conversion below: raise it when the text changes
MIN_DOCUMENT_CHARACTERS = 400  # shorter pages are indexes and redirections
MIN_CORPUS_BYTES = 15_000_000

# Source name -> the package whose dependency is the release's documentation.
METAPACKAGES = {"python-doc": "python3-doc", "postgresql-doc": "postgresql-doc"}

_BLOCKS = frozenset(
    [
        "p",
        "div",
        "br",
        "li",
        "dt",
        "dd",
        "tr",
        "pre",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "table",
        "ul",
        "ol",
        "dl",
        "hr",
    ]
)
_DROPPED = frozenset(("head", "script", "style"))
_NAVIGATION = frozenset(("navheader", "navfooter"))


class PageText(HTMLParser):
    """The text of one HTML page without its navigation."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._pieces: list[str] = []
        self._open: list[tuple[str, bool]] = []  # tag, and whether its content is dropped

    @property
    def text(self) -> str:
        lines = (line.rstrip() for line in "".join(self._pieces).splitlines())
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        dropped = tag in _DROPPED or dict(attrs).get("class") in _NAVIGATION
        if tag in _BLOCKS:
            self._pieces.append("\n")
        if tag not in ("br", "hr", "img", "meta", "link", "input", "col"):
            self._open.append((tag, dropped or self._is_dropped))

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._pieces.append("\n")
        while any(name == tag for name, _ in self._open) and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self._is_dropped:
            self._pieces.append(data)

    @property
    def _is_dropped(self) -> bool:
        return bool(self._open) and self._open[-1][1]


def page_text(html: str) -> str:
    parser = PageText()
    parser.feed(html)
    parser.close()
    return parser.text


def documents(source: str, root: Path) -> Iterator[tuple[str, str]]:
    """(id, text) of every page below an unpacked package, in order of path."""
    pattern, convert = {
        "python-doc": ("**/_sources/**/*.rst.txt*", str.strip),
        "postgresql-doc": ("**/html/**/*.html*", page_text),
    }[source]
    for path in sorted(root.glob(pattern)):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(root)), convert(content(path).replace("\r", ""))


def content(path: Path) -> str:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return raw.decode("utf-8", "replace")


def unpack(metapackage: str, folder: Path) -> None:
    """Downloads and unpacks the documentation that a metapackage stands for; installs nothing."""
    package = dependency(metapackage)
    # Root's apt would download as another user, who may not write into our folder, and warn.
    download = ["apt-get", "download", "--quiet", "--option", "APT::Sandbox::User=root", package]
    subprocess.run(download, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, folder / "root"], check=True)


def dependency(metapackage: str) -> str:
    """The package of this release, such as python3.11-doc for python3-doc."""
    for refresh in (False, True):
        if refresh:
            subprocess.run(["apt-get", "update", "--quiet"], check=True)
        listing = subprocess.run(["apt-cache", "depends", metapackage], capture_output=True)
        if found := re.search(r"Depends: (\S+-doc\S*)", listing.stdout.decode()):
            return found[1]
    raise SystemExit(f"corpus: apt knows no package {metapackage}; give your own text instead")


def write_source(source: str, metapackage: str, out: Path) -> int:
    """Writes one JSON Lines file; returns the bytes of text in it."""
    total = 0
    with tempfile.TemporaryDirectory(prefix="corpus-") as scratch, out.open("w") as file:
        unpack(metapackage, Path(scratch))
        for identifier, text in documents(source, Path(scratch) / "root"):
            if len(text) >= MIN_DOCUMENT_CHARACTERS:
                row = {"id": identifier, "text": text, "metadata": {"source": source}}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                total += len(text.encode())
    return total


def build(folder: Path) -> None:
    """Writes every source into the folder, all or nothing. Raises SystemExit."""
    missing = [tool for tool in ("apt-get", "apt-cache", "dpkg-deb") if not shutil.which(tool)]
    if missing:
        raise SystemExit(
            f"corpus: {', '.join(missing)} not found: this needs a Debian-like machine. "
            "Elsewhere put JSON Lines with a `text` field into a folder and name it in "
            "spec.data.sources."
        )
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        sizes = {
            source: write_source(source, metapackage, partial / f"{source}.jsonl")
            for source, metapackage in METAPACKAGES.items()
        }
        if sum(sizes.values()) < MIN_CORPUS_BYTES:
            raise SystemExit(f"corpus: only {sizes} bytes of text; the packages' form has changed")
        partial.rename(folder)
        print(f"corpus: {sizes} bytes of text in {folder}", file=sys.stderr)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: hack/corpus.py OUT_DIR")
    cache = Path(os.environ.get("PRETRAIN_CACHE") or Path.home() / ".cache/pretrain-operator")
    cached = cache / "corpus" / VERSION
    if not cached.is_dir():
        try:
            build(cached)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"corpus: {error}; is a Debian mirror reachable?") from error
    shutil.copytree(cached, sys.argv[1], dirs_exist_ok=True)


if __name__ == "__main__":
    main()
