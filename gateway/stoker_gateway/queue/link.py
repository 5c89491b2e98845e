"""The NATS protocol as far as calls need it: publish, and hear what comes. On every async call's way, so it is lean.

nats-py does the rest (requests, look-ups, consumers): it makes a task and an object with parsed headers of every
message, which costs more than all else that a worker or a proxy does for a call. Here a message is four byte strings
given to a function, and what a turn of the loop publishes leaves in one write.

Protocol: docs.nats.io, "Client Protocol".
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from stoker_sdk.broker.credentials import read_credentials
from stoker_sdk.broker.settings import BrokerSettings
from stoker_sdk.errors import BadInput

log = logging.getLogger("stoker.queue")

Heard = Callable[[bytes, bytes, bytes, bytes], None]
"""Subject, subject for an answer (or empty), header block with its `NATS/1.0` line (or empty), payload."""

NO_HEADERS: Final = b""
_CONNECT_SECONDS: Final = 3.0
_RETRY_SECONDS: Final = 0.1
_REFUSED_SECONDS: Final = 1.0
_PING_SECONDS: Final = 10.0
_MAX_LINE: Final = 64 * 1024
_PORT: Final = 4222
_VERSION: Final = 1


class _Info(msgspec.Struct, frozen=True):
    version: str = ""
    nonce: str = ""
    tls_required: bool = False
    connect_urls: list[str] = []


class _Refused(Exception):
    """The server's words."""


class Link(asyncio.Protocol):
    """A connection that comes back by itself. What is published while it is away is dropped: see `Publisher`.

    `back` are called, in order, whenever it is there (again), after the subscriptions.
    """

    def __init__(self, settings: BrokerSettings, name: str) -> None:
        self.connected = False
        self.relaxed = settings.relaxed
        self.version = (0, 0)
        self.back: list[Callable[[], None]] = []
        self._settings = settings
        self._name = name
        self._heard: list[tuple[bytes, Heard]] = []
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._paused = False
        self._pieces: list[bytes] = []
        self._have = self._wanted = 0
        self._pongs: list[asyncio.Future[None]] = []
        self._loop = asyncio.get_running_loop()
        address = urlsplit(settings.url)
        self._host = address.hostname or ""
        self._tls = address.scheme == "tls"
        self._servers: deque[tuple[str, int]] = deque([(self._host, address.port or _PORT)])
        self._greeting: asyncio.Future[_Info] = self._loop.create_future()
        self._lost = asyncio.Event()
        self._refusal = ""
        self._complaint = ""
        self._opening = self._loop.create_task(self._stay_open(), name=f"link of {name}")

    def __repr__(self) -> str:
        return f"<Link {self._name} {'connected' if self.connected else 'away'}>"

    # What its users do

    def subscribe(self, subject: str, heard: Heard) -> None:
        """For as long as the link lives, through every reconnection."""
        self._heard.append((subject.encode(), heard))
        if self.connected:
            self._send(b"SUB %b %d\r\n" % (self._heard[-1][0], len(self._heard)))

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"", headers: bytes = NO_HEADERS) -> None:
        """Leaves with the end of this turn of the loop."""
        if not self.connected:
            return
        if headers:
            sizes = (len(headers), len(headers) + len(payload))
            self._send(b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, *sizes, headers, payload))
        else:
            self._send(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload))

    async def flush(self) -> None:
        """Until the server has read all that was published, or is gone."""
        if self.connected:
            await self._ping()

    def close(self) -> None:
        self._opening.cancel()
        if self._transport is not None:
            self._write()
            self._transport.close()

    # Coming and going

    async def _stay_open(self) -> None:
        while True:
            pause = _RETRY_SECONDS
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await self._connect()
            except (_Refused, BadInput, ssl.SSLError) as error:
                self._complain(str(error))
                pause = _REFUSED_SECONDS
            except (OSError, TimeoutError) as error:
                self._complain(f"it cannot be reached: {error or 'timeout'}")
            else:
                self._complaint = ""
                await self._watch()
            self._drop()
            await asyncio.sleep(pause)

    async def _connect(self) -> None:
        self._lost.clear()
        self._refusal = ""
        self._greeting = self._loop.create_future()
        credentials = read_credentials(self._settings)
        self._servers.rotate(-1)  # of a cluster the next, of one server the same
        await self._loop.create_connection(lambda: self, *self._servers[0])
        info = await self._greeting
        self._learn(info.connect_urls)
        if info.tls_required or self._tls:
            await self._begin_tls()
        self.version = _version(info.version)
        options: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "lang": "python",
            "version": str(_VERSION),
            "protocol": 1,
            "name": self._name,
        }
        if credentials.jwt:
            options |= {"jwt": credentials.jwt, "sig": credentials.sign(info.nonce)}
        elif credentials.user:
            options |= {"user": credentials.user, "pass": credentials.password}
        elif credentials.token:
            options["auth_token"] = credentials.token
        self._send(b"CONNECT %b\r\n" % msgspec.json.encode(options))
        await self._ping()
        if self._refusal or self._lost.is_set():
            raise _Refused(self._refusal or "it closes the connection")
        self.connected = True
        for number, (subject, _) in enumerate(self._heard, 1):
            self._send(b"SUB %b %d\r\n" % (subject, number))
        for back in self.back:
            back()

    def _learn(self, others: list[str]) -> None:
        """The other servers of a cluster, as the first one tells them: `HOST:PORT`."""
        for text in others:
            other = urlsplit(f"//{text}")
            server = (other.hostname or "", other.port or _PORT)
            if server not in self._servers:
                self._servers.append(server)

    async def _begin_tls(self) -> None:
        assert self._transport is not None
        context = ssl.create_default_context(cafile=self._settings.ca or None)
        transport = await self._loop.start_tls(self._transport, self, context, server_hostname=self._host)
        assert transport is not None
        self._transport = transport

    async def _watch(self) -> None:
        """Until the connection is lost, or the server has not answered for as long as a ping."""
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                try:
                    async with asyncio.timeout(_PING_SECONDS):
                        await self._ping()
                except TimeoutError:
                    return

    async def _ping(self) -> None:
        pong: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(pong)
        self._send(b"PING\r\n")
        await pong

    def _drop(self) -> None:
        self.connected = False
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._out.clear()
        self._pieces.clear()
        self._have = self._wanted = 0
        self._paused = False

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            self._complaint = reason
            log.warning("the broker at %s: %s", self._settings.url, reason)

    # Writing

    def _send(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._write)
        self._out.append(data)

    def _write(self) -> None:
        if self._out and not self._paused and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write()

    # Reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self.connected = False
        self._lost.set()
        if not self._greeting.done():
            self._greeting.set_exception(ConnectionResetError("it closes the connection"))
        for pong in self._pongs:
            if not pong.done():
                pong.set_result(None)
        self._pongs.clear()

    def data_received(self, data: bytes) -> None:
        if self._pieces:  # of one message that has not wholly come
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._wanted:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
        try:
            at = self._take(data)
        except (ValueError, IndexError):
            self._break_off("it sends a message that the protocol does not know")
            return
        if at < len(data):
            self._pieces.append(data[at:] if at else data)
            self._have = len(data) - at

    def _take(self, data: bytes) -> int:
        """All that is whole; where the rest begins. `_wanted` is then how long that must be at least."""
        at, end = 0, len(data)
        while at < end:
            stop = data.find(b"\r\n", at)
            if stop < 0:
                self._wanted = 0
                if end - at > _MAX_LINE:
                    self._break_off("a line without end")
                return at
            if not data.startswith((b"MSG ", b"HMSG "), at):
                self._control(data[at:stop])
                at = stop + 2
                continue
            # MSG subject number [reply] size, HMSG subject number [reply] header-size size
            words = data[at:stop].split(b" ")
            begin = stop + 2
            behind = begin + int(words[-1])
            if behind + 2 > end:
                self._wanted = behind + 2 - at
                return at
            headers = int(words[-2]) if words[0] == b"HMSG" else 0
            reply = words[3] if len(words) == (6 if headers else 5) else b""
            heard = self._heard[int(words[2]) - 1][1]
            try:
                heard(words[1], reply, data[begin : begin + headers], data[begin + headers : behind])
            except Exception:  # one message must not end the connection for all
                log.exception("a message under %r", words[1][:200])
            at = behind + 2
        return at

    def _control(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        if word == b"PING":
            self._send(b"PONG\r\n")
        elif word == b"PONG":
            if self._pongs and not (pong := self._pongs.pop(0)).done():
                pong.set_result(None)
        elif word == b"INFO":
            if not self._greeting.done():
                try:
                    self._greeting.set_result(msgspec.json.decode(rest, type=_Info))
                except msgspec.MsgspecError as error:
                    self._greeting.set_exception(_Refused(f"it is no NATS server: {error}"))
        elif word == b"-ERR":
            self._refusal = rest.decode("utf-8", "replace").strip("'")
            self._complain(self._refusal)
        elif word != b"+OK":
            self._break_off(f"it sends {line[:40]!r}")

    def _break_off(self, reason: str) -> None:
        self._complain(reason)
        if not self._greeting.done():
            self._greeting.set_exception(_Refused(reason))
        if self._transport is not None:
            self._transport.abort()


def _version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
