"""Asks coordinators for their status document. One session; short waits; never raises.

A coordinator that does not answer in time, or not in the agreed form, is None: the decision core
treats it as silent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

import aiohttp

from pretrain_llm.contract import codec
from pretrain_llm.contract.environment import COORDINATOR_HTTP_PORT
from pretrain_llm.contract.status import StatusDocument

from . import names
from .cache import RunKey

logger = logging.getLogger(__name__)

CoordinatorUrl = Callable[[RunKey], str]

_TIMEOUT_SECONDS = 1.5
_MAX_DOCUMENT_BYTES = 4 * 1024 * 1024  # 16,384 agents in a document are about 3 MiB
_MAX_CONNECTIONS = 64


def service_url(cluster_domain: str) -> CoordinatorUrl:
    """The coordinator's own name inside the cluster."""

    def url(run: RunKey) -> str:
        service = names.coordinator(run.name)
        host = names.service_host(service, run.namespace, cluster_domain)
        return f"http://{host}:{COORDINATOR_HTTP_PORT}/status"

    return url


def templated_url(template: str) -> CoordinatorUrl:
    """For an operator outside the cluster: `{namespace}` and `{run}` are filled in."""

    def url(run: RunKey) -> str:
        return template.format(namespace=run.namespace, run=run.name)

    return url


class CoordinatorClient:
    def __init__(self, url: CoordinatorUrl) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            # A name may move to another pod at any time: its address is looked up again soon.
            connector=aiohttp.TCPConnector(limit=_MAX_CONNECTIONS, ttl_dns_cache=5),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
        )

    async def __aenter__(self) -> CoordinatorClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def status(self, run: RunKey) -> StatusDocument | None:
        try:
            async with self._session.get(self._url(run)) as response:
                response.raise_for_status()
                content = await _bounded(response.content)
            document = codec.from_json(StatusDocument, content)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            logger.debug("coordinator of %s/%s is silent: %s", run.namespace, run.name, error)
            return None
        # An answer of another run's coordinator (a reused address) is no answer.
        return document if document.run == run.name else None


async def _bounded(stream: aiohttp.StreamReader) -> bytes:
    """All of it; ValueError where a pod sends more than any document has."""
    content = bytearray()
    async for chunk in stream.iter_any():
        content += chunk
        if len(content) > _MAX_DOCUMENT_BYTES:
            raise ValueError(f"document of more than {_MAX_DOCUMENT_BYTES} bytes")
    return bytes(content)
