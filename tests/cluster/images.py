"""The two images of a local cluster, made without a registry, a container engine or a base image.

- pause: the process that holds a pod's namespaces.
- host: an almost empty root file system. Its pods mount /usr, the Python interpreter, the Python
  environment and the sources from the node, read-only, at the same paths as on the machine. So a
  pod runs exactly the files that the tests run, and an edit needs no image build.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .configs import HOST_IMAGE, PAUSE_IMAGE

USER_ID = 65532
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_SEARCH_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Config = dict[str, str | list[str]]


@dataclass(frozen=True)
class Entry:
    """One thing in an image's root file system: a folder unless it has content or a target."""

    path: str
    mode: int = 0o755
    content: bytes | None = None
    target: str | None = None


_HOST_FILES = {
    "etc/passwd": f"root:x:0:0::/root:/bin/sh\npretrain:x:{USER_ID}:{USER_ID}::/tmp:/bin/sh\n",
    "etc/group": f"root:x:0:\npretrain:x:{USER_ID}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_HOST_FOLDERS = ("dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "sys", "usr", "var")
HOST_ENTRIES = (
    *(Entry(folder) for folder in _HOST_FOLDERS),
    Entry("tmp", mode=0o1777),
    *(Entry(link, target=f"usr/{link}") for link in ("bin", "lib", "lib64", "sbin")),
    *(Entry(path, mode=0o644, content=text.encode()) for path, text in _HOST_FILES.items()),
)


def write(directory: Path, pause: Path) -> list[Path]:
    """Writes both images as archives that containerd imports; `pause` is the program."""
    directory.mkdir(exist_ok=True)
    pause_entries = [Entry("pause", content=pause.read_bytes())]
    host_config: Config = {"User": f"{USER_ID}:{USER_ID}"}
    return [
        _archive(directory / "pause.tar", PAUSE_IMAGE, pause_entries, {"Entrypoint": ["/pause"]}),
        _archive(directory / "host.tar", HOST_IMAGE, HOST_ENTRIES, host_config),
    ]


def layer(entries: Iterable[Entry]) -> bytes:
    """A tar of the entries, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in entries:
            tar.addfile(_header(entry), io.BytesIO(entry.content or b""))
    return buffer.getvalue()


def _header(entry: Entry) -> tarfile.TarInfo:
    header = tarfile.TarInfo(entry.path)
    header.mode = entry.mode
    header.type = tarfile.DIRTYPE
    if entry.content is not None:
        header.type, header.size = tarfile.REGTYPE, len(entry.content)
    if entry.target is not None:
        header.type, header.linkname = tarfile.SYMTYPE, entry.target
    return header


def _archive(file: Path, reference: str, entries: Iterable[Entry], config: Config) -> Path:
    content = layer(entries)
    digest = hashlib.sha256(content).hexdigest()
    document = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": [_SEARCH_PATH], **config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    config_bytes = json.dumps(document).encode()
    config_name = f"{hashlib.sha256(config_bytes).hexdigest()}.json"
    layer_name = f"{digest}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]}]
    files = {config_name: config_bytes, "manifest.json": json.dumps(manifest).encode()}
    file.write_bytes(layer(Entry(n, 0o644, c) for n, c in {**files, layer_name: content}.items()))
    return file
