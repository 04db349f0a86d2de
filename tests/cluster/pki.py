"""Certificates of a throw-away cluster: one authority, and a key pair for every component.

Made with the openssl command because the standard library cannot sign. Elliptic-curve keys
throughout, since an RSA key alone would take longer than all of these.
"""

from collections.abc import Sequence
from pathlib import Path

from .processes import run

_CURVE = "ec_paramgen_curve:prime256v1"
_EC_KEY = ("-newkey", "ec", "-pkeyopt", _CURVE, "-nodes")
# The distribution's own openssl.cnf marks every self-made certificate as an authority.
_CONFIG = "[req]\ndistinguished_name = name\n[name]\n"

SERVER_NAMES = (
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    "DNS:kubernetes.default.svc.cluster.local",
)
CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
    "apiserver-kubelet-client": "/O=system:masters/CN=kube-apiserver-kubelet-client",
}


def create(directory: Path, addresses: Sequence[str]) -> None:
    """Fills `directory` with all that a control plane on these IP addresses needs."""
    directory.mkdir(mode=0o700)
    (directory / "openssl.cnf").write_text(_CONFIG)
    _certificate(directory, "ca", "/CN=pretrain-local", ["basicConstraints=critical,CA:true"], ())
    names = ",".join([*SERVER_NAMES, *(f"IP:{address}" for address in addresses)])
    server = [f"subjectAltName={names}", "extendedKeyUsage=serverAuth"]
    _signed(directory, "apiserver", "/CN=kube-apiserver", server)
    for name, subject in CLIENTS.items():
        issue_client(directory, name, subject)
    _service_account_key(directory)


def issue_client(directory: Path, name: str, subject: str) -> None:
    """Writes <name>.key and <name>.crt of a client that the API server knows by `subject`."""
    _signed(directory, name, subject, ["extendedKeyUsage=clientAuth"])


def _signed(directory: Path, name: str, subject: str, extensions: list[str]) -> None:
    authority = ("-CA", str(directory / "ca.crt"), "-CAkey", str(directory / "ca.key"))
    _certificate(directory, name, subject, extensions, authority)


def _certificate(
    directory: Path, name: str, subject: str, extensions: list[str], authority: Sequence[str]
) -> None:
    added = [word for extension in extensions for word in ("-addext", extension)]
    request = ["openssl", "req", "-x509", "-config", f"{directory}/openssl.cnf", *_EC_KEY]
    output = ["-keyout", f"{directory}/{name}.key", "-out", f"{directory}/{name}.crt"]
    run(*request, *authority, "-days", "3650", "-subj", subject, *added, *output)


def _service_account_key(directory: Path) -> None:
    key = directory / "service-account.key"
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", _CURVE, "-out", key)
    run("openssl", "pkey", "-in", key, "-pubout", "-out", directory / "service-account.pub")
