"""The API server, as verbs on plain objects. The only importer of the Kubernetes client.

Objects go in and come out as the API has them (camelCase dicts): the client's generated models
would double the operator's memory and drop the fields that they do not know yet. Nothing is
decided, remembered or retried here: an answer of 400 or more is an `ApiError`, and no answer at
all is an `ApiError` too, so that callers have one thing to catch.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as client_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.stream.ws_client import ERROR_CHANNEL, STDOUT_CHANNEL, WsApiClient

from . import api
from .observed import KubernetesObject

FIELD_MANAGER = "pretrain-operator"
_IN_CLUSTER_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_REQUEST_TIMEOUT_SECONDS = 30.0
_PAGE_OBJECTS = 500


@dataclass(frozen=True)
class Resource:
    kind: str
    api_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        root = (
            f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        )
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{root}{scope}/{self.plural}{tail}"


RESOURCES = {
    resource.kind: resource
    for resource in (
        Resource(api.KIND, api.API_VERSION, api.PLURAL),
        Resource("Job", "batch/v1", "jobs"),
        Resource("Pod", "v1", "pods"),
        Resource("Deployment", "apps/v1", "deployments"),
        Resource("Service", "v1", "services"),
        Resource("ConfigMap", "v1", "configmaps"),
        Resource("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
        Resource("Event", "v1", "events"),
        Resource("Node", "v1", "nodes", namespaced=False),
    )
}


class ApiError(Exception):
    """The API server said no (`code`), or did not answer (`code` 0)."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message

    @property
    def is_not_found(self) -> bool:
        return self.code == 404

    @property
    def is_conflict(self) -> bool:
        """Somebody changed the object meanwhile, or it is already there."""
        return self.code == 409

    @property
    def is_refusal(self) -> bool:
        """The object itself is at fault: the same request will be refused again."""
        return self.code in (400, 403, 413, 422)


def is_unanswered(error: Exception) -> bool:
    """Whether the API server did not answer: the message says all that there is to know."""
    return isinstance(error, ApiError) and error.code == 0


CallObserver = Callable[[str, str, int], None]  # verb, kind, HTTP status code (0: no answer)


@dataclass(frozen=True)
class ObjectList:
    items: tuple[dict[str, Any], ...]
    resource_version: str


@dataclass(frozen=True)
class Connection:
    """What another client needs to reach the same server in the same name."""

    server: str
    ca_path: str | None
    insecure: bool
    token: str | None
    certificate_path: str | None
    private_key_path: str | None


class Cluster:
    """`async with await Cluster.connect() as cluster:`"""

    def __init__(self, configuration: Configuration, on_call: CallObserver | None = None) -> None:
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._on_call = on_call or (lambda _verb, _kind, _code: None)

    @classmethod
    async def connect(
        cls,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        on_call: CallObserver | None = None,
    ) -> Cluster:
        """From the given kubeconfig, else the pod's service account, else the default kubeconfig.

        Raises ApiError (code 0) where none of them is there or usable.
        """
        return cls(await _configuration(kubeconfig, context), on_call)

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def connection(self) -> Connection:
        settings = self._configuration
        header = await settings.get_api_key_with_prefix("BearerToken", alias="authorization")
        return Connection(
            server=settings.host,
            ca_path=settings.ssl_ca_cert,
            insecure=not settings.verify_ssl,
            token=header.split(" ", 1)[-1].strip() if header else None,
            certificate_path=settings.cert_file,
            private_key_path=settings.key_file,
        )

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """None where there is no such object."""
        try:
            return await self._call("GET", kind, RESOURCES[kind].path(namespace, name))
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def list(
        self, kind: str, namespace: str | None = None, *, label_selector: str = ""
    ) -> ObjectList:
        """All of them, in pages. The version is the first page's: later pages show that state."""
        resource = RESOURCES[kind]
        found: list[dict[str, Any]] = []
        query = {"limit": str(_PAGE_OBJECTS)}
        if label_selector:
            query["labelSelector"] = label_selector
        while True:
            page = await self._call("GET", kind, resource.path(namespace), query=query, verb="list")
            # Items of a list come without these two.
            identity = {"apiVersion": resource.api_version, "kind": kind}
            found += [identity | item for item in page.get("items", ())]
            following = page["metadata"].get("continue")
            if not following:
                return ObjectList(tuple(found), page["metadata"]["resourceVersion"])
            query["continue"] = following

    async def apply(
        self, body: KubernetesObject, *, manager: str = FIELD_MANAGER
    ) -> dict[str, Any]:
        """Server-side apply: makes the object, or makes the fields that `body` names ours."""
        return await self._apply(body, manager=manager)

    async def replace_status(self, body: KubernetesObject) -> dict[str, Any]:
        """Writes body's status; a conflict if it is not of the newest resourceVersion."""
        metadata = body["metadata"]
        path = RESOURCES[body["kind"]].path(metadata["namespace"], metadata["name"], "status")
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("PUT", body["kind"], path, query=query, body=body, verb="update")

    async def apply_status(self, body: KubernetesObject) -> dict[str, Any]:
        """Server-side apply of the status fields that `body` names; a uid in it is a condition."""
        return await self._apply(body, "status")

    async def _apply(
        self, body: KubernetesObject, subresource: str = "", manager: str = FIELD_MANAGER
    ) -> dict[str, Any]:
        metadata = body["metadata"]
        resource = RESOURCES[body["kind"]]
        return await self._call(
            "PATCH",
            body["kind"],
            resource.path(metadata.get("namespace"), metadata["name"], subresource),
            query={"fieldManager": manager, "force": "true"},
            body=body,
            content_type="application/apply-patch+yaml",
            verb="apply",
        )

    async def patch(self, body: KubernetesObject) -> dict[str, Any]:
        """Merges what `body` names into the object; a conflict if it has a resourceVersion that is
        not the newest. For lists that server-side apply would take as a whole from their owners.
        """
        metadata = body["metadata"]
        path = RESOURCES[body["kind"]].path(metadata.get("namespace"), metadata["name"])
        return await self._call(
            "PATCH",
            body["kind"],
            path,
            query={"fieldManager": FIELD_MANAGER},
            body=body,
            content_type="application/merge-patch+json",
            verb="patch",
        )

    async def create(self, body: KubernetesObject) -> dict[str, Any]:
        path = RESOURCES[body["kind"]].path(body["metadata"].get("namespace"))
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("POST", body["kind"], path, query=query, body=body, verb="create")

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> dict[str, Any]:
        """The object as it is now (on its way out), or a Status where it is gone at once."""
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        path = RESOURCES[kind].path(namespace, name)
        return await self._call("DELETE", kind, path, body=options)

    async def patch_status(self, body: KubernetesObject) -> dict[str, Any]:
        """Merges what `body` names into the status of a Pod or Node: conditions by their type."""
        metadata = body["metadata"]
        resource = RESOURCES[body["kind"]]
        return await self._call(
            "PATCH",
            body["kind"],
            resource.path(metadata.get("namespace"), metadata["name"], "status"),
            query={"fieldManager": FIELD_MANAGER},
            body=body,
            content_type="application/strategic-merge-patch+json",
            verb="patch",
        )

    async def evict(self, namespace: str, pod: str) -> dict[str, Any]:
        """As `kubectl drain` does; an ApiError with code 429 where a budget forbids it for now."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        path = RESOURCES["Pod"].path(namespace, pod, "eviction")
        return await self._call("POST", "Pod", path, body=body, verb="evict")

    async def execute(
        self, namespace: str, pod: str, container: str, command: Sequence[str]
    ) -> str:
        """Standard output of a command in a container; ApiError with all it said if it fails."""
        path = RESOURCES["Pod"].path(namespace, pod, "exec")
        query = [("container", container), ("stdout", "true"), ("stderr", "true")]
        query += [("command", part) for part in command]
        headers: dict[str, str] = {}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        texts: dict[int, str] = {}
        try:
            async with (
                WsApiClient(self._configuration) as client,  # type: ignore[no-untyped-call]
                await client.request(
                    "GET",
                    f"{self._configuration.host}{path}",
                    query_params=query,
                    headers=headers,
                    _preload_content=False,
                ) as channels,
            ):
                async for message in channels:
                    channel, text = message.data[0], message.data[1:].decode(errors="replace")
                    texts[channel] = texts.get(channel, "") + text
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(error.status, "NoExec", f"exec in {pod}: {error.message}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "NoAnswer", f"exec in {pod}: {error}") from error
        return _command_output(pod, texts)

    async def is_served(self, kind: str) -> bool:
        """Whether the server knows the kind; False while a new CRD is not established."""
        resource = RESOURCES[kind]
        try:
            found = await self._call("GET", "APIResourceList", f"/apis/{resource.api_version}")
        except ApiError as error:
            if error.is_not_found:
                return False
            raise
        return any(item["kind"] == kind for item in found.get("resources", ()))

    async def through_service(
        self, namespace: str, service: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """POSTs JSON to `service` (name:port) by the API server's proxy, or GETs where none is."""
        resource = RESOURCES["Service"].path(namespace, service, "proxy")
        method = "GET" if body is None else "POST"
        return await self._call(
            method, "Service", f"{resource}{path}", body=body, verb="proxy", timeout_seconds=300.0
        )

    async def log_lines(
        self, namespace: str, pod: str, *, container: str, follow: bool, tail_lines: int
    ) -> AsyncIterator[str]:
        query = {"container": container, "tailLines": str(tail_lines)}
        if follow:
            query["follow"] = "true"
        path = RESOURCES["Pod"].path(namespace, pod, "log")
        response = await self._send("GET", "Pod", path, query=query, timeout_seconds=None)
        try:
            async for line in response.content:
                yield line.decode(errors="replace").rstrip("\n")
        finally:
            response.close()

    async def _call(
        self,
        method: str,
        kind: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        verb: str | None = None,
        timeout_seconds: float = _REQUEST_TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        response = await self._send(
            method,
            kind,
            path,
            query=query,
            body=body,
            content_type=content_type,
            verb=verb,
            timeout_seconds=timeout_seconds,
        )
        try:
            document: dict[str, Any] = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, "NoAnswer", f"{method} {path}: {error}") from error
        return document

    async def _send(
        self,
        method: str,
        kind: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        verb: str | None = None,
        timeout_seconds: float | None = _REQUEST_TIMEOUT_SECONDS,
    ) -> aiohttp.ClientResponse:
        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type}
        code = 0
        try:
            await self._client.update_params_for_auth(
                headers, [], ["BearerToken"], path, method, None
            )
            answer = await self._client.call_api(
                method,
                url,
                headers,
                body,
                _request_timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=10.0),
            )
            code = answer.status
            if code >= 400:
                content = await answer.read()  # type: ignore[no-untyped-call]
                raise _api_error(code, answer.reason, content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = str(error) or type(error).__name__
            raise ApiError(0, "NoAnswer", f"{method} {path}: {text}") from error
        finally:
            self._on_call(verb or method.lower(), kind, code)
        response: aiohttp.ClientResponse = answer.response
        return response


def _command_output(pod: str, texts: Mapping[int, str]) -> str:
    """Of an exec's channels. Without a verdict the container ended under the command."""
    said = "".join(text for channel, text in texts.items() if channel != ERROR_CHANNEL).strip()
    try:
        verdict = json.loads(texts.get(ERROR_CHANNEL, ""))
    except ValueError:
        raise ApiError(0, "NoAnswer", f"exec in {pod}: its end was not seen; {said}") from None
    if verdict.get("status") != "Success":
        raise ApiError(500, "CommandFailed", said or str(verdict.get("message")))
    return texts.get(STDOUT_CHANNEL, "")


def _api_error(code: int, reason: str, content: bytes) -> ApiError:
    """From the Status object that the server sends; from the bare text where a proxy answered."""
    try:
        status = json.loads(content)
        return ApiError(code, status.get("reason", reason), status["message"])
    except (ValueError, KeyError, AttributeError):
        text = content.decode(errors="replace").strip() or reason
        return ApiError(code, reason, text[:2000])


def _is_in_cluster() -> bool:
    """Whether this is a pod with a service account, and nobody chose another cluster."""
    return _IN_CLUSTER_TOKEN.exists() and not os.environ.get("KUBECONFIG")


async def _configuration(kubeconfig: str | None, context: str | None) -> Configuration:
    configuration = Configuration()
    try:
        if _is_in_cluster() and not kubeconfig and context is None:
            client_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            await client_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
    except (client_config.ConfigException, OSError) as error:
        raise ApiError(0, "NoConfiguration", f"no usable kubeconfig: {error}") from error
    return configuration


async def default_namespace(kubeconfig: str | None = None, context: str | None = None) -> str:
    """The namespace of the kubeconfig's context, else `default`."""
    try:
        contexts, active = await asyncio.to_thread(
            client_config.list_kube_config_contexts, kubeconfig
        )
    except (client_config.ConfigException, OSError):
        return "default"
    chosen = next((item for item in contexts if item["name"] == context), active)
    namespace: str = chosen.get("context", {}).get("namespace", "default")
    return namespace
