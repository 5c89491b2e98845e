"""Raw HTTP over sockets for tests of the engine: a client that sends any bytes and reads answers strictly, and a server
in this process whose answers are scripted byte by byte.

Reading is strict on purpose: what a lenient client forgives, a test must see.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import uvloop

from stoker_wire.exchange import Exchange, Idle
from stoker_wire.limits import Limits
from stoker_wire.server import Handler, Server

SECONDS = 10.0
"""No single step of a test waits longer."""

PLAIN = b"Content-Type: text/plain\r\n"

Field = tuple[bytes, bytes]


@dataclass
class RawAnswer:
    """An answer as it stood on the wire. `whole` is False if the connection ended before it did."""

    status: int
    fields: list[Field] = field(default_factory=list)
    body: bytes = b""
    whole: bool = True

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, (name, self.fields)
        return values[0]

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def all(self, name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in self.fields if key.lower() == name.lower().encode()]


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a write of its own, and flushed."""
        for piece in pieces:
            self.writer.write(piece)
            await asyncio.wait_for(self.writer.drain(), SECONDS)

    async def ask(self, data: bytes, *, head_only: bool = False) -> RawAnswer:
        await self.send(data)
        return await self.answer(head_only=head_only)

    async def answer(self, *, head_only: bool = False) -> RawAnswer:
        return await asyncio.wait_for(read_answer(self.reader, head_only=head_only), SECONDS)

    async def rest(self) -> bytes:
        """All that comes until the connection ends, whether it ends well or not."""
        data = bytearray()
        try:
            while piece := await asyncio.wait_for(self.reader.read(65536), SECONDS):
                data += piece
        except ConnectionError:
            pass
        return bytes(data)

    def half_close(self) -> None:
        self.writer.write_eof()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass

    def reset(self) -> None:
        self.writer.transport.abort()


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> RawAnswer:
    """One answer, read strictly. Raises ConnectionError or IncompleteReadError when there is none."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    version, _, rest = first.partition(b" ")
    assert version == b"HTTP/1.1" and rest[3:4] == b" ", first
    answer = RawAnswer(int(rest[:3]))
    for line in lines:
        name, colon, value = line.partition(b": ")
        assert colon and name and b" " not in name, line
        answer.fields.append((name, value))
    if not head_only and answer.status >= 200 and answer.status not in (204, 304):
        await _read_body(reader, answer)
    return answer


async def _read_body(reader: asyncio.StreamReader, answer: RawAnswer) -> None:
    lengths, codings = answer.all("Content-Length"), answer.all("Transfer-Encoding")
    assert len(lengths) + len(codings) <= 1, answer.fields
    try:
        if codings:
            assert codings == ["chunked"]
            await _read_chunks(reader, answer)
        elif lengths:
            answer.body = await reader.readexactly(int(lengths[0]))
        else:
            answer.body = await reader.read()
    except asyncio.IncompleteReadError as error:
        answer.body += error.partial
        answer.whole = False
    except ConnectionError:
        answer.whole = False


async def _read_chunks(reader: asyncio.StreamReader, answer: RawAnswer) -> None:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        answer.body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"


async def connect(address: str, tls: ssl.SSLContext | None = None) -> RawClient:
    """To `unix:/path` or `tcp:host:port`."""
    kind, _, rest = address.partition(":")
    if kind == "unix":
        return RawClient(*await asyncio.open_unix_connection(rest))
    host, _, port = rest.rpartition(":")
    name = "localhost" if tls else None
    return RawClient(*await asyncio.open_connection(host, int(port), ssl=tls, server_hostname=name))


def engine_loops() -> asyncio.AbstractEventLoopPolicy:
    """The event loop that the engine runs on, for pytest-asyncio's fixture `event_loop_policy`."""
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


# A server of the engine


class Wire:
    """A server of the engine on a free port, and clients of it."""

    def __init__(self, server: Server, address: str, tls: ssl.SSLContext | None) -> None:
        self.server = server
        self.address = address
        self._tls = tls
        self._clients: list[RawClient] = []

    async def client(self) -> RawClient:
        client = await connect(self.address, self._tls)
        self._clients.append(client)
        return client

    async def ask(self, data: bytes, *, head_only: bool = False) -> RawAnswer:
        """On a connection of its own."""
        return await (await self.client()).ask(data, head_only=head_only)

    async def talk(self, data: bytes) -> bytes:
        """Send these bytes, and return all that comes until the server closes."""
        client = await self.client()
        await client.send(data)
        return await client.rest()

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        self.server.close()


@asynccontextmanager
async def serving(
    handler: Callable[[Exchange], object],
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    *,
    server_tls: ssl.SSLContext | None = None,
    client_tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Wire]:
    """A server of the engine with this handler."""
    server = Server(cast(Handler, handler), limits)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(server, "127.0.0.1", 0, ssl=server_tls)
    wire = Wire(server, f"tcp:127.0.0.1:{listener.sockets[0].getsockname()[1]}", client_tls)
    try:
        yield wire
    finally:
        listener.close()
        await wire.close()


class Gather(Idle):
    """An owner that takes the whole request, then answers with `answer(exchange, body)`, and notes what it was told."""

    def __init__(self, exchange: Exchange, answer: Callable[[Exchange, bytes], None] | None = None) -> None:
        self.exchange = exchange
        self.data = b""
        self.events: list[str] = []
        self._answer = answer or (lambda exchange, body: exchange.respond(200, PLAIN, body))
        exchange.owner = self
        if exchange.length:
            exchange.accept_body()
        else:
            self.body_end()

    def body(self, data: bytes) -> None:
        self.data += data

    def body_end(self) -> None:
        self.events.append("end")
        self._answer(self.exchange, self.data)

    def client_gone(self) -> None:
        self.events.append("gone")

    def hold(self) -> None:
        self.events.append("hold")

    def release(self) -> None:
        self.events.append("release")


# A scripted server

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class BackEnd:
    """A server that runs a script on each connection. `heads` are the request heads that `read_request` read."""

    address: str = ""
    connections: int = 0
    open: int = 0
    heads: list[bytes] = field(default_factory=list)

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """A request's head; its body, if it has one with a length, is read and returned behind it."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length: "):
                return head + await reader.readexactly(int(line[16:]))
        return head


@asynccontextmanager
async def back_end(
    script: Callable[[BackEnd, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[BackEnd]:
    """A scripted server on a free port. A connection is closed when its script ends, or fails."""
    made = BackEnd()
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        made.open += 1
        try:
            await script(made, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            made.open -= 1
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(run(reader, writer), name="scripted connection")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
    made.address = f"tcp:127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def always(answer: bytes) -> Callable[[BackEnd, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A script that answers every request with the same bytes, on connections that stay open."""

    async def script(back: BackEnd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await back.read_request(reader)
            writer.write(answer)

    return script


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, with a limit."""
    deadline = asyncio.get_running_loop().time() + SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.002)
