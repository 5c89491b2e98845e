"""What we ask of a Docker Engine, by its API on a unix socket: https://docs.docker.com/reference/api/engine/.

A dozen requests through the HTTP client that control has anyway. The package `docker` is synchronous, so each waiting
replica and each followed log would take a thread.
"""

from __future__ import annotations

from asyncio import IncompleteReadError
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec
from aiohttp import ClientError, ClientPayloadError, ClientResponse, ClientSession, ClientTimeout, UnixConnector

from stoker_gateway.providers.text import one_line
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError, Unavailable

_SOON: Final = ClientTimeout(total=60, sock_connect=3)
_FOR_EVER: Final = ClientTimeout(total=None, sock_connect=3)
_PULL: Final = ClientTimeout(total=None, sock_connect=3, sock_read=120)
_ANSWER: Final = ClientTimeout(total=10, sock_connect=3)
_LONGEST_LINE: Final = 1 << 20

Body = Mapping[str, Any]
T = TypeVar("T")


class EngineAway(Unavailable):
    """No Engine answers."""


class Image(msgspec.Struct, rename="pascal"):
    """`repo_digests` is empty for an image that was never in a registry, `repo_tags` for one that has no name."""

    id: str
    repo_digests: list[str] | None = None
    repo_tags: list[str] | None = None


class State(msgspec.Struct, rename="pascal"):
    running: bool = False
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = msgspec.field(default=False, name="OOMKilled")
    error: str = ""


class Endpoint(msgspec.Struct):
    address: str = msgspec.field(default="", name="IPAddress")


class Networks(msgspec.Struct, rename="pascal"):
    networks: dict[str, Endpoint] | None = None


class Container(msgspec.Struct, rename="pascal"):
    id: str
    state: State
    network_settings: Networks

    @property
    def address(self) -> str:
        """Its IP address; empty when it has none."""
        endpoints = (self.network_settings.networks or {}).values()
        return next((one.address for one in endpoints if one.address), "")


class Listed(msgspec.Struct, rename="pascal"):
    id: str
    state: str
    labels: dict[str, str] | None = None


class _Made(msgspec.Struct, rename="pascal"):
    id: str


class _Message(msgspec.Struct):
    message: str = ""


class _Descriptor(msgspec.Struct):
    digest: str = ""


class _Distribution(msgspec.Struct, rename="pascal"):
    descriptor: _Descriptor


class _Progress(msgspec.Struct):
    current: int = 0
    total: int = 0


class _PullLine(msgspec.Struct, rename="camel"):
    status: str = ""
    id: str = ""
    error: str = ""
    progress_detail: _Progress | None = None


class Engine:
    """The Engine at `unix:///PATH`. Every method raises `EngineAway`, or the `StokerError` that the status means."""

    def __init__(self, host: str) -> None:
        if not host.startswith("unix:///"):
            raise BadInput(
                f"the Docker Engine {host[:200]!r} is not on this machine, and containers must be: name its socket by "
                "`stoker serve --docker-host unix:///PATH`"
            )
        self._host = host
        self._session: ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # Images

    async def image(self, name: str) -> Image:
        return await self._get(f"/images/{_path(name)}/json", Image, f"image {name}")

    async def digest_in_registry(self, name: str, authorization: str) -> str:
        """What the tag means now: the Engine asks the registry, with the mirrors and certificates of its pulls."""
        headers = {"X-Registry-Auth": authorization} if authorization else {}
        path, what = f"/distribution/{_path(name)}/json", f"image {name}"
        async with self._asked("GET", path, what, headers=headers, within=_ANSWER) as answer:
            return _decoded(await answer.read(), _Distribution, what).descriptor.digest

    async def pull(self, name: str, authorization: str, progress: Callable[[str], None]) -> None:
        """Fetch an image; `progress` is told in words how far it is."""
        headers = {"X-Registry-Auth": authorization} if authorization else {}
        asked, what = {"fromImage": name}, f"image {name}"
        layers: dict[str, _Progress] = {}
        async with self._asked("POST", "/images/create", what, params=asked, headers=headers, within=_PULL) as answer:
            async for line in answer.content:
                told = _decoded(line, _PullLine, what)
                if told.error:
                    raise StokerError(one_line(told.error))
                if told.progress_detail is not None and told.progress_detail.total:
                    layers[told.id] = told.progress_detail
                    done, total = (sum(getattr(one, part) for one in layers.values()) for part in ("current", "total"))
                    progress(f"{told.status.lower()}, {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    async def remove_image(self, name: str) -> None:
        """The name; and what it means, if it has no other. Raises `Conflict` while a container is made of it."""
        await self._do("DELETE", f"/images/{_path(name)}", f"image {name}")

    # Containers

    async def create(self, name: str, body: Body) -> str:
        asked, what = {"name": name}, f"container {name}"
        async with self._asked("POST", "/containers/create", what, params=asked, body=body) as answer:
            return _decoded(await answer.read(), _Made, what).id

    async def start(self, id: str) -> None:
        await self._do("POST", f"/containers/{id}/start", "container")

    async def inspect(self, id: str) -> Container:
        return await self._get(f"/containers/{id}/json", Container, "container")

    async def wait(self, id: str) -> None:
        """Until it does not run."""
        async with self._asked("POST", f"/containers/{id}/wait", "container", within=_FOR_EVER) as answer:
            await answer.read()

    async def kill(self, id: str, number: int) -> None:
        await self._do("POST", f"/containers/{id}/kill", "container", {"signal": str(number)})

    async def stop(self, id: str, seconds: int) -> None:
        """SIGTERM, and SIGKILL after so long."""
        await self._do("POST", f"/containers/{id}/stop", "container", {"t": str(seconds)})

    async def remove(self, id: str) -> None:
        """With all that it holds, running or not."""
        await self._do("DELETE", f"/containers/{id}", "container", {"force": "1", "v": "1"})

    async def containers(self, label: str) -> list[Listed]:
        """All with the label, whatever their state."""
        filters = msgspec.json.encode({"label": [label]}).decode()
        return await self._get("/containers/json", list[Listed], "containers", {"all": "1", "filters": filters})

    @asynccontextmanager
    async def logs(self, id: str, since: str) -> AsyncIterator[AsyncGenerator[tuple[int, bytes], None]]:
        """What it prints, until it ends: pieces of `(stream, b"TIME TEXT")`, those with a newline end a line."""
        asked = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1", "since": since}
        async with self._asked("GET", f"/containers/{id}/logs", "log", params=asked, within=_FOR_EVER) as answer:
            yield _pieces(answer)

    # Networks

    async def networks(self, label: str) -> list[str]:
        """The ids of those with the label."""
        filters = msgspec.json.encode({"label": [label]}).decode()
        return [one.id for one in await self._get("/networks", list[_Made], "networks", {"filters": filters})]

    async def create_network(self, name: str, label: str) -> str:
        """A bridge on which containers do not reach one another. Two may have one name: the id counts."""
        key, _, value = label.partition("=")
        options = {"com.docker.network.bridge.enable_icc": "false"}
        body = {"Name": name, "Driver": "bridge", "Labels": {key: value}, "Options": options}
        async with self._asked("POST", "/networks/create", f"network {name}", body=body) as answer:
            return _decoded(await answer.read(), _Made, "network").id

    async def remove_network(self, id: str) -> None:
        await self._do("DELETE", f"/networks/{id}", "network")

    # How

    async def _get(self, path: str, kind: type[T], what: str, params: Mapping[str, str] | None = None) -> T:
        async with self._asked("GET", path, what, params=params) as answer:
            return _decoded(await answer.read(), kind, what)

    async def _do(
        self, method: str, path: str, what: str, params: Mapping[str, str] | None = None, body: Body | None = None
    ) -> None:
        async with self._asked(method, path, what, params=params, body=body) as answer:
            await answer.read()

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        what: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        within: ClientTimeout = _SOON,
    ) -> AsyncIterator[ClientResponse]:
        if self._session is None:
            # One connection for each replica that is waited for, and one for its log; none is kept, because after a
            # restart of the Engine it would be a dead one.
            connector = UnixConnector(self._host.removeprefix("unix://"), limit=0, force_close=True)
            self._session = ClientSession("http://docker", connector=connector, read_bufsize=_LONGEST_LINE)
        try:
            async with self._session.request(
                method, path, params=params, json=body, headers=headers, timeout=within
            ) as answer:
                if answer.status >= 400:
                    raise _error_of(answer.status, await answer.read(), what)
                yield answer
        except (ClientError, OSError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> EngineAway:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if isinstance(error, ClientPayloadError):
            detail = "it broke off its answer"
        elif isinstance(error, TimeoutError):
            detail = "it did not answer in time"
        else:
            detail = getattr(cause, "strerror", "") or one_line(str(cause)) or type(cause).__name__
        fix = "start Docker, or name its socket by `stoker serve --docker-host unix:///PATH`"
        if isinstance(error, PermissionError) or isinstance(cause, PermissionError):
            fix = "this user must be allowed to use it (group `docker`)"
        return EngineAway(f"no Docker Engine answers at {self._host} ({detail}): {fix}")


async def _pieces(answer: ClientResponse) -> AsyncGenerator[tuple[int, bytes], None]:
    """The Engine's frames: stream, three zeros, the length in four bytes, the piece."""
    while True:
        try:
            head = await answer.content.readexactly(8)
            piece = await answer.content.readexactly(int.from_bytes(head[4:]))
        except IncompleteReadError:
            return
        yield head[0], piece


def _decoded(body: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise StokerError(f"{what}: the Docker Engine sent what cannot be read: {error}") from error


def _error_of(status: int, body: bytes, what: str) -> StokerError:
    try:
        said = msgspec.json.decode(body, type=_Message).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = ""
    text = f"{what}: {one_line(said) or f'the Docker Engine answered {status}'}"
    kinds = {400: BadInput, 401: Forbidden, 403: Forbidden, 404: NotFound, 409: Conflict}
    return kinds.get(status, Unavailable)(text)


class Forbidden(StokerError):
    """A registry does not show this to whom we are."""


def _path(name: str) -> str:
    return quote(name, safe="/:@")
