"""Moves shards between the agents of a run, over HTTP: raw bytes and JSON, each file checksummed.

GET  /generations/<round>-<step>/<rank>/<file>
PUT  the same, with the file's SHA-256; the manifest last. 409: not wanted (any more), 507: no room.

Only a request with the attempt's token is answered. Numbers in a path are parsed and names are
taken from a short list, so that no path leaves the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..checkpoints import generations
from ..contract import codec
from ..contract.layout import MANIFEST
from ..contract.manifests import FileEntry
from ..contract.memory import (
    CHECKSUM_HEADER,
    GENERATION_PATH,
    TOKEN_HEADER,
    Generation,
    Shards,
    parsed,
)

SILENT_SECONDS = 5.0  # a peer that sends or takes nothing for so long is given up
CHUNK_BYTES = 1 << 20
_FILE = re.compile(r"\d{1,4}\.(bin|json)|manifest\.json")

logger = logging.getLogger(__name__)


class TransferError(Exception):
    """Shards did not come over; the message says why."""


class Peer:
    """Another agent's memory, as a context. `abandon` ends what another thread does with it."""

    def __init__(self, address: str, token: str) -> None:
        host, _, port = address.rpartition(":")
        self._token = token
        self._connection = HTTPConnection(
            host.strip("[]"), int(port), timeout=SILENT_SECONDS, blocksize=CHUNK_BYTES
        )

    def abandon(self) -> None:
        if connected := self._connection.sock:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, root: Path, shards: Shards) -> None:
        """Gives the peer a copy, if it has none. Raises TransferError."""
        place = generations.folder(root, shards.generation, shards.rank)
        try:
            if self._has(shards):
                return
            # The smallest first: an answer that refuses them is read before the peer hangs up.
            for entry in sorted(shards.files, key=lambda entry: entry.bytes):
                with open(place / entry.path, "rb") as file:
                    self._put(shards, entry, file)
            manifest = codec.to_json(shards).encode()
            checksum = hashlib.sha256(manifest).hexdigest()
            self._put(shards, FileEntry(MANIFEST, len(manifest), checksum), manifest)
        except (OSError, HTTPException) as error:
            raise TransferError(f"{type(error).__name__}: {error}") from error

    def fetch(
        self, root: Path, generation: Generation, rank: int, is_wanted: Callable[[], bool]
    ) -> Shards:
        """Takes a copy and verifies it. Raises TransferError."""
        place = generations.folder(root, generation, rank)
        try:
            place.mkdir(parents=True, exist_ok=True)
            text = self._get(generation, rank, MANIFEST).read()
            shards = codec.from_json(Shards, text)
            if (shards.generation, shards.rank) != (generation, rank):
                raise TransferError(f"{shards.generation} of node {shards.rank} came instead")
            for entry in shards.files:
                answer = self._get(generation, rank, entry.path)
                _receive(answer.read, place, entry, is_wanted)
            generations.write(place / MANIFEST, text.decode())
        except (OSError, HTTPException, codec.DecodeError) as error:
            raise TransferError(f"{type(error).__name__}: {error}") from error
        return shards

    def _has(self, shards: Shards) -> bool:
        answer = self._request("GET", _path(shards.generation, shards.rank, MANIFEST))
        text = answer.read()
        return answer.status == HTTPStatus.OK and text == codec.to_json(shards).encode()

    def _get(self, generation: Generation, rank: int, name: str) -> HTTPResponse:
        answer = self._request("GET", _path(generation, rank, name))
        if answer.status != HTTPStatus.OK:
            raise TransferError(f"{name}: {answer.status}: {_words(answer)}")
        return answer

    def _put(self, shards: Shards, entry: FileEntry, body: Any) -> None:
        headers = {CHECKSUM_HEADER: entry.sha256, "Content-Length": str(entry.bytes)}
        path = _path(shards.generation, shards.rank, entry.path)
        answer = self._request("PUT", path, body, headers)
        if answer.status != HTTPStatus.OK:
            raise TransferError(f"{entry.path}: {answer.status}: {_words(answer)}")
        answer.read()

    def _request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> HTTPResponse:
        with contextlib.suppress(BrokenPipeError):  # refused half-way: the answer says why
            self._connection.request(
                method, path, body, {TOKEN_HEADER: self._token, **(headers or {})}
            )
        return self._connection.getresponse()


def _path(generation: Generation, rank: int, name: str) -> str:
    return f"{GENERATION_PATH}/{generation}/{rank}/{name}"


def _words(answer: HTTPResponse) -> str:
    return answer.read(1000).decode(errors="replace").strip()


def _receive(
    read: Callable[[int], bytes], place: Path, entry: FileEntry, is_wanted: Callable[[], bool]
) -> None:
    """Writes a file of known size, and gives it its name once its checksum is right.

    Raises TransferError, OSError.
    """
    if not _FILE.fullmatch(entry.path):
        raise TransferError(f"{entry.path!r} is no file of a generation")
    part, digest, missing = place / f".{entry.path}", hashlib.sha256(), entry.bytes
    with open(part, "wb") as file:
        while missing:
            chunk = read(min(CHUNK_BYTES, missing))
            if not chunk:
                raise TransferError(f"{entry.path}: {missing} of {entry.bytes} bytes are missing")
            if not is_wanted():
                raise TransferError(f"{entry.path}: not wanted any more")
            digest.update(chunk)
            file.write(chunk)
            missing -= len(chunk)
    if digest.hexdigest() != entry.sha256:
        part.unlink()
        raise TransferError(f"{entry.path}: another checksum than announced")
    os.replace(part, place / entry.path)


class Server(ThreadingHTTPServer):
    """Serves what is in memory, takes copies that `is_wanted`; `on_copy` hears of whole ones."""

    daemon_threads = True

    def __init__(
        self,
        port: int,
        root: Path,
        token: str,
        is_wanted: Callable[[Generation], bool],
        on_copy: Callable[[Shards], None],
    ) -> None:
        self.root, self.token = root, token
        self.is_wanted, self.on_copy = is_wanted, on_copy
        super().__init__(("", port), RequestHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        if isinstance(sys.exception(), ConnectionError | TimeoutError):
            return  # the other agent is gone, or has given up
        logger.exception("request of %s", client_address)


class RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60.0
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        if (target := self._target()) is None:
            return
        place, _, name = target
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(open(place / name, "rb"))
            except FileNotFoundError:
                self._answer(HTTPStatus.NOT_FOUND, "not here")
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(file)

    def do_PUT(self) -> None:
        if (target := self._target()) is None:
            return
        place, generation, name = target
        length, free = (
            self.headers.get("Content-Length", ""),
            shutil.disk_usage(self.server.root).free,
        )
        if not length.isdecimal():
            self._answer(HTTPStatus.LENGTH_REQUIRED, "Content-Length: required")
        elif not self.server.is_wanted(generation):
            self._answer(HTTPStatus.CONFLICT, f"{generation} is not wanted")
        elif int(length) > free:
            self._answer(HTTPStatus.INSUFFICIENT_STORAGE, f"{length} bytes, and {free} are free")
        else:
            self._take(place, generation, name, int(length))

    def _take(self, place: Path, generation: Generation, name: str, length: int) -> None:
        entry = FileEntry(name, length, self.headers.get(CHECKSUM_HEADER, ""))
        try:
            place.mkdir(parents=True, exist_ok=True)
            if name == MANIFEST:
                self._complete(place, entry)
            else:
                wanted = self.server.is_wanted
                _receive(self.rfile.read, place, entry, lambda: wanted(generation))
        except (TransferError, OSError, codec.DecodeError) as error:
            self._answer(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        else:
            self._answer(HTTPStatus.OK, "taken", keep=True)

    def _complete(self, place: Path, entry: FileEntry) -> None:
        """The manifest: all files that it names came before it, each verified as it came."""
        text = self.rfile.read(min(entry.bytes, CHUNK_BYTES))
        shards = codec.from_json(Shards, text)
        for file in shards.files:
            if not _FILE.fullmatch(file.path) or (place / file.path).stat().st_size != file.bytes:
                raise TransferError(f"{file.path} is not as the manifest says")
        if place != generations.folder(self.server.root, shards.generation, shards.rank):
            raise TransferError("the manifest is of other shards")
        generations.write(place / MANIFEST, text.decode())
        self.server.on_copy(shards)

    def _target(self) -> tuple[Path, Generation, str] | None:
        """The folder, generation and file of the request; None after an answer that refused it."""
        token = self.headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._answer(HTTPStatus.FORBIDDEN, f"{TOKEN_HEADER}: not the attempt's")
            return None
        parts = self.path.removeprefix(f"{GENERATION_PATH}/").split("/")
        if len(parts) == 3:
            generation, rank, name = parsed(parts[0]), parts[1], parts[2]
            if generation and rank.isdecimal() and _FILE.fullmatch(name):
                place = generations.folder(self.server.root, generation, int(rank))
                return place, generation, name
        self._answer(HTTPStatus.NOT_FOUND, f"path: {self.path!r} is not served")
        return None

    def _answer(self, code: HTTPStatus, text: str, *, keep: bool = False) -> None:
        """`keep`: the request's body was read, so the connection can be used again."""
        body = (text + "\n").encode()
        self.close_connection = not keep and self.command != "GET"
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A line a file is not worth it."""
