"""Builds and finds the programs a cluster is made of, once per content of `kubebox/`.

The result is kept in the project's cache under a hash of its sources. It appears there by a
rename, so a killed build leaves nothing that could be taken for a finished one. Programs that
KUBEBUILDER_ASSETS already has are used instead of ours.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from . import rundir, toolchain
from .processes import ClusterError, announce, last_lines

CONTROL_PLANE_PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
)
NODE_PROGRAMS = ("coredns", "kube-proxy", "kubelet", "pause")
PROGRAMS = CONTROL_PLANE_PROGRAMS + NODE_PROGRAMS

_SOURCES = Path(__file__).parent / "kubebox"
_PROGRESS_SECONDS = 15.0


def build(names: Iterable[str] = PROGRAMS) -> None:
    """Makes sure that the named programs exist; compiles for about six minutes if they do not."""
    if all(path(name).exists() for name in names):
        return
    with rundir.exclusive(_folder().parent.parent / ".lock"):
        if not _folder().exists():
            _build_into_cache()


def path(name: str) -> Path:
    """Where a program is, or will be once built."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and os.access(Path(assets) / name, os.X_OK):
        return Path(assets) / name
    return _folder() / name


def kubernetes_version(go_mod: str) -> str:
    """The version of Kubernetes that a go.mod requires, such as v1.35.4."""
    return _only(r"^\s+k8s\.io/kubernetes (v\S+)$", go_mod)


def linker_flags(version: str) -> str:
    """Stamps what Kubernetes' own build stamps; components compare versions at run time."""
    major, minor = version.removeprefix("v").split(".")[:2]
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    stamps |= {"gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    set_flags = [f"-X {package}.{name}={v}" for package in packages for name, v in stamps.items()]
    return " ".join(["-s", "-w", *set_flags])


def _folder() -> Path:
    digest = hashlib.sha256(linker_flags(kubernetes_version(_go_mod())).encode())
    for source in sorted([*_SOURCES.rglob("*.go"), *_SOURCES.glob("go.*")]):
        digest.update(source.read_bytes())
    return rundir.cache_directory() / "kubernetes" / digest.hexdigest()[:16] / "bin"


def _build_into_cache() -> None:
    final = _folder().parent
    for partial in final.parent.glob("building-*"):
        shutil.rmtree(partial)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=final.parent))
    programs = building / "bin"
    programs.mkdir()
    _compile(programs, building / "build.log")
    for name in PROGRAMS:
        if name != "pause":
            (programs / name).symlink_to("kubebox")
    building.chmod(0o755)
    building.rename(final)


def _compile(programs: Path, log: Path) -> None:
    """Runs `go build` for everything in `kubebox/`, saying every 15 seconds how far it is."""
    began = time.monotonic()
    go = toolchain.Go(toolchain.go(_minimum_go(_go_mod())), _SOURCES)
    announce(f"building Kubernetes {kubernetes_version(_go_mod())}, once: downloading modules")
    go.run("mod", "download")
    num_packages = len(go.run("list", "-deps", "./...").splitlines())
    stamps = linker_flags(kubernetes_version(_go_mod()))
    options = ["-trimpath", "-buildvcs=false", f"-ldflags={stamps}", f"-o={programs}/"]
    with (
        log.open("w") as output,
        go.popen("build", "-v", *options, "./...", output=output) as build,
    ):
        while not _ended(build):
            done = log.read_text().count("\n")
            seconds = time.monotonic() - began
            announce(f"building Kubernetes: {done} of {num_packages} packages, {seconds:.0f} s")
    if build.returncode:
        raise ClusterError(f"go build failed:\n{last_lines(log)}")
    announce(f"built Kubernetes in {time.monotonic() - began:.0f} s")


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_PROGRESS_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _go_mod() -> str:
    return (_SOURCES / "go.mod").read_text()


def _minimum_go(go_mod: str) -> str:
    return _only(r"^go (\S+)$", go_mod)


def _only(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise ValueError(f"kubebox/go.mod has no line like {pattern!r}")
    return found.group(1)
