"""Process 1 of a node: gives it a file system view of its own, then runs containerd and kubelet.

Run by `node.py` inside fresh namespaces, as a script, with the path of a JSON file:

    {"hostname", "directory", "containerd": [argv], "images": [files], "services": {name: [argv]}}

The node sees the machine's files, except that /run is empty, /var/log and a few folders of
/var/lib are its own, and the kernel settings that a kubelet insists on changing are plain files.
All of it is in the node's mount namespace: nothing is created on, or changed of, the host.
"""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

_BIND, _RECURSIVE, _SHARED = 0x1000, 0x4000, 0x100000
_SOCKET = "/run/containerd/containerd.sock"
# Those that the kubelet sets at start, and refuses to run without.
_KERNEL_SETTINGS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(config_file: str) -> None:
    """Sets the node up, starts its services, and ends, the whole node with it, if one ends."""
    config = json.loads(Path(config_file).read_text())
    directory = Path(config["directory"])
    socket.sethostname(config["hostname"])
    prepare_file_system(directory)
    processes = {"containerd": start(directory, "containerd", config["containerd"])}
    import_images(config["images"])
    for name, argv in config["services"].items():
        processes[name] = start(directory, name, argv)
    reap_until_one_ends({process.pid: name for name, process in processes.items()})


def prepare_file_system(directory: Path) -> None:
    """Makes the node's own view; `directory` must not be below /run or /var/log."""
    mount("tmpfs", Path("/run"), kind="tmpfs")
    bind(made(directory / "log"), Path("/var/log"))
    own = {"kubelet": made(directory / "kubelet"), "cni": made(Path("/run/cni-cache"))}
    replace_children(Path("/var/lib"), own, made(Path("/run/var-lib")))
    for setting in _KERNEL_SETTINGS:
        copy = made(directory / "kernel") / setting.replace("/", ".")
        shutil.copyfile(Path("/proc/sys") / setting, copy)
        bind(copy, Path("/proc/sys") / setting)
    mount("none", Path("/"), flags=_SHARED | _RECURSIVE)


def replace_children(folder: Path, own: dict[str, Path], staging: Path) -> None:
    """Shows `folder` as it is, but with some children replaced, existing or not.

    A mount needs a folder to stand on, and making one in `folder` would make it on the host.
    """
    for entry in os.scandir(folder):
        if entry.name not in own and entry.is_dir(follow_symlinks=False):
            bind(Path(entry.path), made(staging / entry.name))
    for name, source in own.items():
        bind(source, made(staging / name))
    bind(staging, folder)


def start(directory: Path, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
    """Starts a service with a log of its own."""
    with (directory / f"{name}.log").open("ab") as log:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def import_images(files: list[str]) -> None:
    """Loads image archives once containerd answers; an image that is there already is quick."""
    ctr = ["ctr", "--address", _SOCKET, "--namespace", "k8s.io"]
    deadline = time.monotonic() + 30
    while subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError("containerd does not answer, see containerd.log")
        time.sleep(0.05)
    for file in files:
        subprocess.run([*ctr, "images", "import", "--snapshotter", "native", file], check=True)


def reap_until_one_ends(services: dict[int, str]) -> None:
    """Waits for every child, orphans of pods included, as process 1 must."""
    while True:
        pid, status = os.wait()
        if pid in services:
            code = os.waitstatus_to_exitcode(status)
            sys.exit(f"{services[pid]} ended with {code}, see {services[pid]}.log; node stops")


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def bind(source: Path, target: Path) -> None:
    mount(str(source), target, flags=_BIND | _RECURSIVE)


def mount(source: str, target: Path, *, kind: str = "none", flags: int = 0) -> None:
    """mount(2), directly: a command each would take longer than everything else here."""
    words = (source.encode(), bytes(target), kind.encode())
    if _LIBC.mount(*words, ctypes.c_ulong(flags), None):
        error = ctypes.get_errno()
        raise OSError(error, f"mount {source}: {os.strerror(error)}", str(target))


if __name__ == "__main__":
    main(sys.argv[1])
