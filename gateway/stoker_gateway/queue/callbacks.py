"""Delivers callbacks: the answer of a call is posted to the address that its caller named (contract section 5.4).

At least once: a receiver whose answer is lost gets the same again, with the same `X-Call-Id`. Any 2xx is *delivered*;
so is 303, by which a receiver that has taken a POST says where to look next. Redirects (301, 302, 307, 308) are
followed with method and body, five at most, each checked like the first, and never from https to http. Lost
connections, names that do not resolve, 408, 425, 429 and 5xx are tried again on the schedule in `Times`; everything
else is final.

The address that the guard has checked is the one that is dialled: the client's resolver is the guard.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from stoker_gateway.queue.addresses import Guard, as_address
from stoker_gateway.queue.callback_client import Gates, GuardedResolver, read_some, session
from stoker_gateway.queue.callback_request import PIECE, Body, Callback, headers_of, signature_headers, size_of, stream
from stoker_gateway.queue.callback_url import check_callback_url
from stoker_gateway.queue.policy import retry_after_seconds
from stoker_sdk.errors import BadInput, Unavailable

MAX_REDIRECTS: Final = 5

_REDIRECTS = frozenset({301, 302, 307, 308})
_DELIVERED = frozenset({*range(200, 300), 303})
_AGAIN = frozenset({408, 425, 429, *range(500, 600)})
_ROUTES = ("function", "async-function")
_IDLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Times:
    """Limits of a delivery, in seconds. An attempt may take `answer` plus what its body needs at `rate` bytes a second.

    `total` is for all attempts: none is begun later.
    """

    attempts: int = 8
    first: float = 1.0
    most: float = 60.0
    total: float = 600.0
    answer: float = 30.0
    rate: float = 1_000_000.0

    def of_attempt(self, size: int) -> float:
        return self.answer + size / self.rate


@dataclass(frozen=True, slots=True)
class Tried:
    """How one attempt ended. `reason` is for people, and empty if it was delivered; `status` is 0 without an answer.

    Reasons name hosts, not whole URLs: paths and queries of webhooks are often secrets.
    """

    status: int = 0
    reason: str = ""
    again: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a callback ended after so many attempts. `status` and `reason` are the last attempt's."""

    delivered: bool
    attempts: int
    status: int
    reason: str


def pause_after(attempt: int, tried: Tried, times: Times, rng: Random) -> float | None:
    """Seconds until the next attempt; None if there is none. Pauses double, and half of each is random."""
    if not tried.again or attempt >= times.attempts:
        return None
    cap = min(times.most, times.first * 2.0 ** min(attempt - 1, 64))
    return max(cap * (1 - 0.5 * rng.random()), min(tried.retry_after or 0.0, times.most))


class Callbacks:
    """Posts answers to their callers. Made inside a running event loop; one for each worker.

    `inside` maps `host:port` of this platform's own addresses (see `in_cluster`) to sockets of its proxies, which take
    turns: callbacks to functions go there and nowhere else. `per_host` bounds what one slow receiver can hold up.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        inside: Mapping[str, Sequence[Path]] | None = None,
        times: Times | None = None,
        parallel: int = 500,
        per_host: int = 20,
        tls: ssl.SSLContext | None = None,
        rng: Random | None = None,
    ) -> None:
        self._guard = guard
        self._times = times or Times()
        self._rng = rng or Random()
        self._gates = Gates(parallel, per_host)
        self._outside = session(
            aiohttp.TCPConnector(
                resolver=GuardedResolver(guard),
                use_dns_cache=False,
                ssl=tls or True,
                limit=0,
                keepalive_timeout=_IDLE_SECONDS,
            )
        )
        paths = {path for sockets in (inside or {}).values() for path in sockets}
        clients = {path: session(aiohttp.UnixConnector(str(path), limit=0)) for path in paths}
        self._inside = {origin: [clients[path] for path in sockets] for origin, sockets in (inside or {}).items()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """What is on its way breaks off. The guard is the caller's."""
        for client in {self._outside, *(each for clients in self._inside.values() for each in clients)}:
            await client.close()

    async def deliver(
        self,
        callback: Callback,
        secret: bytes | None = None,
        waits: Callable[[int, Tried, float], Awaitable[None]] | None = None,
    ) -> Delivery:
        """Try until it is delivered, refused, or its attempts or time are used up. Signed if there is a secret.

        `waits` is told of each attempt that is not the last: its number, how it ended, and the pause in seconds.
        """
        begun = time.monotonic()
        attempt = 1
        while True:
            tried = await self.attempt(callback, secret, attempt)
            pause = pause_after(attempt, tried, self._times, self._rng)
            if pause is None or time.monotonic() + pause - begun > self._times.total:
                return Delivery(not tried.reason, attempt, tried.status, tried.reason)
            if waits is not None:
                await waits(attempt, tried, pause)
            await asyncio.sleep(pause)
            attempt += 1

    async def attempt(self, callback: Callback, secret: bytes | None = None, number: int = 1) -> Tried:
        """One attempt, redirects included; for callers that keep the schedule themselves (`pause_after`)."""
        try:
            check_callback_url(callback.url)
            url = URL(callback.url, encoded=True)
        except (BadInput, ValueError) as error:
            return Tried(reason=str(error))
        try:
            async with self._gates.enter(_origin(url), self._times.total):
                return await self._send(url, callback, secret, number)
        except BadInput as error:
            return Tried(reason=str(error))
        except (aiohttp.InvalidURL, ValueError) as error:
            return Tried(reason=f"{url.origin()} cannot be called: {error}")
        except Unavailable as error:
            return Tried(reason=str(error), again=True)
        except (aiohttp.ClientError, OSError) as error:
            return Tried(reason=f"{url.origin()}: {str(error)[:200] or type(error).__name__}", again=True)

    async def _send(self, url: URL, callback: Callback, secret: bytes | None, number: int) -> Tried:
        headers = CIMultiDict(headers_of(callback))
        if secret is not None:
            headers.extend(await signature_headers(callback, secret, int(time.time())))
        limit = self._times.of_attempt(size_of(callback.body))
        deadline = asyncio.get_running_loop().time() + limit
        try:
            return await self._follow(url, self._client_for(url, number), headers, callback.body, deadline)
        except TimeoutError:
            raise Unavailable(f"{url.origin()} did not answer within {limit:.3g} s") from None

    async def _follow(
        self, first: URL, client: aiohttp.ClientSession, headers: CIMultiDict[str], body: Body, deadline: float
    ) -> Tried:
        url = first
        for _ in range(MAX_REDIRECTS + 1):
            host = url.raw_host or ""
            if client is self._outside and as_address(host):
                await self._guard.addresses(host)  # names come to the guard as the client's resolver
            tried, location = await self._post(client, url, headers, body, deadline)
            if tried.status not in _REDIRECTS or not location:
                return tried
            url, client = redirected(url, location), self._outside
        return Tried(tried.status, f"{first.origin()} redirects more than {MAX_REDIRECTS} times")

    async def _post(
        self, client: aiohttp.ClientSession, url: URL, headers: CIMultiDict[str], body: Body, deadline: float
    ) -> tuple[Tried, str]:
        """What one request came to, and where its answer leads on. Its status counts, whatever becomes of the rest."""
        data = body if isinstance(body, bytes) and len(body) <= PIECE else stream(body)
        async with asyncio.timeout_at(deadline):
            answer = await client.post(url, data=data, headers=headers, allow_redirects=False)
        async with answer:
            await read_some(answer)
        return judge(url, answer.status, answer.headers.get("Retry-After", "")), answer.headers.get("Location", "")

    def _client_for(self, url: URL, number: int) -> aiohttp.ClientSession:
        inside = self._inside.get(_origin(url)) if url.scheme == "http" else None
        if not inside:
            return self._outside
        _check_function_path(url)
        return inside[number % len(inside)]


def judge(url: URL, status: int, retry_after: str) -> Tried:
    """What a receiver's status means."""
    if status in _DELIVERED:
        return Tried(status)
    wait = retry_after_seconds(retry_after, time.time()) if status in (429, 503) else None
    return Tried(status, f"{url.origin()} answered {status}", status in _AGAIN, wait)


def redirected(url: URL, location: str) -> URL:
    """Where a redirect leads. Raises `BadInput` if that is no place for a callback."""
    try:
        target = url.join(URL(location, encoded=True))
    except ValueError:
        raise BadInput(f"{url.origin()} redirects to {location[:80]!r}, which is no URL") from None
    check_callback_url(str(target))
    if url.scheme == "https" and target.scheme != "https":
        raise BadInput(f"{url.origin()} redirects from https to http: the answer would go in the clear")
    return target


def in_cluster(
    sockets: Sequence[Path], gateway: str = "gateway.openfaas", port: int = 8080
) -> dict[str, Sequence[Path]]:
    """The addresses of the gateway that functions and their callers know from a cluster (contract section 1)."""
    return {f"{gateway}{suffix}:{port}": sockets for suffix in ("", ".svc", ".svc.cluster.local")}


def _check_function_path(url: URL) -> None:
    """A callback is no way to the platform's own API, which a proxy serves too."""
    parts = [unquote(part) for part in url.raw_path.split("/")[1:]]
    if len(parts) < 2 or parts[0] not in _ROUTES or not parts[1] or not {".", ".."}.isdisjoint(parts):
        raise BadInput(f"{url.path[:80]!r} is no function of this platform: callbacks inside go to /function/NAME")


def _origin(url: URL) -> str:
    return f"{(url.raw_host or '').lower()}:{url.port}"
