"""The cluster's API by its official asyncio client: credentials, TLS and requests are its, the objects are ours.

Of the client we use the configuration and the transport. Its thousand model classes are left out of the way of every
answer: JSON is decoded into the few fields that we read (`objects`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import msgspec
from aiohttp import ClientError, ClientResponse, ClientTimeout
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from yaml import YAMLError

from stoker_gateway.providers.kubernetes.errors import error_of, unreachable
from stoker_gateway.providers.kubernetes.objects import Manifest
from stoker_gateway.providers.text import one_line
from stoker_sdk.errors import StokerError

T = TypeVar("T")

_SECONDS = 15.0
_CONNECT_SECONDS = 5.0
_OVERLOAD_SECONDS = 8.0
"""For how long a server that has too much to do (429) is asked again, before whoever waits is told."""
_FIRST_PAUSE = 0.25


class Api:
    """Requests by path. Raises `StokerError`s only."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self.requests = 0
        """How many have been made, watches included."""

    async def close(self) -> None:
        await self._client.close()

    async def get(self, path: str, kind: type[T], what: str, query: Mapping[str, str] = {}) -> T:
        return _decode(await self._ask("GET", path, what, query=query), kind, what)

    async def create(self, path: str, body: Manifest, kind: type[T], what: str) -> T:
        return _decode(await self._ask("POST", path, what, body=body), kind, what)

    async def replace(self, path: str, body: Manifest, kind: type[T], what: str, query: Mapping[str, str] = {}) -> T:
        return _decode(await self._ask("PUT", path, what, query=query, body=body), kind, what)

    async def patch(self, path: str, body: Manifest, kind: type[T], what: str, query: Mapping[str, str] = {}) -> T:
        """A merge patch: what is named is set, what is null is removed, all else stays."""
        return _decode(await self._ask("PATCH", path, what, query=query, body=body), kind, what)

    async def delete(self, path: str, what: str, body: Manifest | None = None) -> None:
        await self._ask("DELETE", path, what, body=body)

    @asynccontextmanager
    async def stream(self, path: str, what: str, query: Mapping[str, str], silence: float) -> AsyncIterator[Any]:
        """The open answer's stream reader. After `silence` seconds without a byte, reading raises `TimeoutError`."""
        limits = ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
        response = await self._send("GET", path, what, query=query, limits=limits)
        try:
            yield response.content
        except (ClientError, OSError) as error:
            raise unreachable(error, what) from error
        finally:
            response.close()

    async def _ask(
        self, method: str, path: str, what: str, *, query: Mapping[str, str] = {}, body: Manifest | None = None
    ) -> bytes:
        limits = ClientTimeout(total=_SECONDS, sock_connect=_CONNECT_SECONDS)
        response = await self._send(method, path, what, query=query, body=body, limits=limits)
        try:
            return await response.read()
        except (ClientError, OSError) as error:
            raise unreachable(error, what) from error
        finally:
            response.release()

    async def _send(
        self,
        method: str,
        path: str,
        what: str,
        *,
        limits: ClientTimeout,
        query: Mapping[str, str] = {},
        body: Manifest | None = None,
    ) -> ClientResponse:
        """The answer, with a status of 2xx and its body still to be read.

        What was answered 429 has not been begun, so any request may be repeated.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        until, pause = monotonic() + _OVERLOAD_SECONDS, _FIRST_PAUSE
        try:
            while True:
                self.requests += 1
                prepared = await self._client.param_serialize(
                    method,
                    path,
                    query_params=list(query.items()),
                    header_params={"Accept": "application/json", "Content-Type": kind},
                    body=body,
                    auth_settings=["BearerToken"],
                )
                answer = await self._client.call_api(*prepared, _request_timeout=limits)
                response: ClientResponse = answer.response
                if response.status < 300:
                    return response
                told, wait = await response.read(), _wait(response, pause)
                if response.status != 429 or monotonic() + wait > until:
                    raise error_of(response.status, told, what)
                await asyncio.sleep(wait)
                pause *= 2
        except (ClientError, OSError) as error:
            raise unreachable(error, what) from error


def _wait(response: ClientResponse, pause: float) -> float:
    """Seconds: about the pause, and longer where the server asks for that."""
    asked = response.headers.get("Retry-After", "")
    seconds = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 0.0
    return max(seconds, pause * random.uniform(0.5, 1.0))


async def open_api(kubeconfig: Path | None, context: str = "") -> Api:
    """The API of the cluster that the file names, or, without a file, of the one that this process runs in.

    Raises `StokerError` when there are no credentials to be found.
    """
    settings = Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=settings)
        else:
            await config.load_kube_config(str(kubeconfig), context or None, settings, persist_config=False)
    except (config.ConfigException, OSError, ValueError, TypeError, LookupError, AttributeError, YAMLError) as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "the service account of this pod"
        raise StokerError(
            f"{where} gives no access to a cluster: {one_line(str(error))}; set KUBECONFIG to one that does"
        ) from error
    return Api(ApiClient(settings))


def _decode(body: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StokerError(f"{what}: the Kubernetes API sent what cannot be read: {error}") from error
