"""The demo's corpus: what becomes of an unpacked documentation package."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hack import corpus

PAGE = """<html><head><title>Index</title><style>p {}</style></head><body>
<div class="navheader"><a href="x">Prev</a><table><tr><td>Up</td></tr></table></div>
<h1>Indexes</h1><p>They are &lt;fast&gt;<br>and cost <b>time</b>.</p><img src="y"><p>The end.</p>
<div class="navfooter">Next</div></body></html>"""


def test_page_text_navigation_and_markup_are_gone() -> None:
    assert corpus.page_text(PAGE) == "Indexes\n\nThey are <fast>\nand cost time.\n\nThe end."


def test_documents_python_sources_are_unpacked_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/doc/html/_sources"
    folder.mkdir(parents=True)
    (folder / "b.rst.txt.gz").write_bytes(gzip.compress(b"Second\r\n"))
    (folder / "a.rst.txt").write_text("First\n")
    (folder / "c.rst.txt").symlink_to(folder / "a.rst.txt")
    (folder / "image.png").write_bytes(b"\x89")
    assert [text for _, text in corpus.documents("python-doc", tmp_path)] == ["First", "Second"]


def test_build_without_apt_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"apt-get.* not found.*spec\.data\.sources"):
        corpus.build(tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()
