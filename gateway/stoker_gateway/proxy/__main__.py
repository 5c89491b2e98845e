"""One proxy process: takes its listening sockets from the supervisor, its table from control, and serves.

    python -m stoker_gateway.proxy CONFIG-JSON

The process ends with its supervisor (parent-death signal); SIGTERM lets running calls finish first.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec
import uvloop

from stoker_gateway.link import MAX_LINE as MAX_LINK_LINE
from stoker_gateway.link import (
    Ack,
    Count,
    Counted,
    Demand,
    Limits,
    Table,
    ToProxy,
    Wake,
    decode_for_proxy,
    encode,
)
from stoker_gateway.proxy.certificate import Certificate
from stoker_gateway.proxy.enqueue import WINDOW, Enqueue
from stoker_gateway.proxy.guard import Inside
from stoker_gateway.proxy.hosts import Hosts
from stoker_gateway.proxy.proxy import Proxy
from stoker_gateway.queue.stored import MAX_BODY
from stoker_sdk.processes import die_with_parent, say_ready
from stoker_wire.server import Server

log = logging.getLogger("stoker.proxy")

_COUNTERS_SECONDS = 1.0
_SILENCE_SECONDS = 1.0
"""At a stop, a kept-alive connection without a request for so long is closed; on others the next answer says so."""


class ProxyConfig(msgspec.Struct, frozen=True):
    """What the supervisor tells a proxy. Sockets are file descriptors that the process inherits.

    `worker_socket` is where workers of this machine call functions; `broker_file` is empty without a broker, and
    `broker_folder` without one of ours. Under `domain` owners have hosts, but for the gateway's `own_hosts`; clients
    at the networks `inside` may call private functions.
    """

    number: int
    http_fds: list[int]
    https_fds: list[int]
    control_socket: str
    table_socket: str
    certificate: str
    key: str
    max_body: int
    max_waiting: int
    drain_seconds: float
    ready_fd: int
    worker_socket: str = ""
    broker_file: str = ""
    max_async_body: int = MAX_BODY
    idempotency_window: float = WINDOW
    broker_folder: str = ""
    domain: str = ""
    own_hosts: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    pipeline: str = ""
    """The git pipeline's address, as `stoker_wire.client` writes it. Empty: what is for it goes to control, which knows
    nothing of it."""
    pages_socket: str = ""
    """Empty: as with the pipeline. On `pages_host`, if there is one, the pages are all there is."""
    pages_host: str = ""


class ControlLink:
    """Keeps the table in step with control's, and reconnects for as long as it takes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self.proxy: Proxy | None = None
        self.loaded = asyncio.Event()
        self._counted = (0, 0)
        self._demanded: dict[str, int] = {}

    def wake(self, key: str) -> None:
        if self._writer is not None:
            self._writer.write(encode(Wake(key)))

    async def run(self) -> None:
        """Never returns. A lost connection is tried again: control may be restarting."""
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINK_LINE)
                self._writer.write(encode(Demand({})))
                await self._follow(reader)
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                log.debug("table link: %s", error)
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            await asyncio.sleep(0.05)

    def send_counters(self) -> None:
        """Now and then unasked, so that a proxy which is killed takes little of what it counted along."""
        proxy = self.proxy
        if self._writer is not None and proxy is not None:
            counted = (proxy.counted, proxy.enqueue.counting.version)
            if counted != self._counted:
                self._counted = counted
                self._writer.write(encode(_counted(0, proxy)))
            demand = proxy.rates.demand()
            if demand or self._demanded:
                self._demanded = demand
                self._writer.write(encode(Demand(demand)))
        asyncio.get_running_loop().call_later(_COUNTERS_SECONDS, self.send_counters)

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self._take(decode_for_proxy(line))

    def _take(self, message: ToProxy) -> None:
        proxy, writer = self.proxy, self._writer
        if proxy is None or writer is None:
            return
        if isinstance(message, Count):
            writer.write(encode(_counted(message.question, proxy)))
            return
        if isinstance(message, Limits):
            proxy.rates.set(message)
            return
        if isinstance(message, Table):
            proxy.replace_table(message.routes)
            proxy.wake_again()
            self.loaded.set()
        elif message.route is None:
            proxy.remove(message.key)
        else:
            proxy.put(message.route)
        writer.write(encode(Ack(message.version)))


def _counted(question: int, proxy: Proxy) -> Counted:
    enqueue = proxy.enqueue
    return Counted(question, proxy.counters(), enqueue.counting.all(), {"gateway": enqueue.reconnects})


async def serve(config: ProxyConfig) -> None:
    loop = asyncio.get_running_loop()
    link = ControlLink(config.table_socket)
    broker_file = Path(config.broker_file) if config.broker_file else None
    folder = Path(config.broker_folder) if config.broker_folder else None
    enqueue = Enqueue(
        broker_file,
        name=f"proxy {config.number}",
        limit=config.max_async_body,
        window=config.idempotency_window,
        folder=folder,
    )
    proxy = link.proxy = Proxy(
        f"unix:{config.control_socket}",
        link.wake,
        max_body=config.max_body,
        max_waiting=config.max_waiting,
        pipeline_address=config.pipeline,
        pages_address=f"unix:{config.pages_socket}" if config.pages_socket else "",
        pages_host=config.pages_host.encode(),
        enqueue=enqueue,
        hosts=Hosts(config.domain, config.own_hosts),
        inside=Inside(config.inside),
    )
    following = loop.create_task(link.run(), name="table link")
    stop = asyncio.Event()
    await link.loaded.wait()  # until then there is nothing to drain, and a signal ends the process
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(proxy.handle)
    listeners = await _listen(config, server)
    link.send_counters()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # calls make no cycles; rare collections keep the tail short
    say_ready(config.ready_fd, b"ready")
    await stop.wait()
    for listener in listeners:
        listener.close()
    server.drain(_SILENCE_SECONDS)
    await _until_idle(server, enqueue, config.drain_seconds)
    await enqueue.close()
    following.cancel()
    server.close()
    proxy.close()


async def _listen(config: ProxyConfig, server: Server) -> list[asyncio.Server]:
    loop = asyncio.get_running_loop()
    listeners = []
    for fd in config.http_fds:
        listener = await loop.create_server(server, sock=socket.socket(fileno=fd), backlog=1024)
        listeners.append(listener)
    if config.https_fds:
        certificate = Certificate(config.certificate, config.key)
        certificate.keep_fresh()
        for fd in config.https_fds:
            sock = socket.socket(fileno=fd)
            listener = await loop.create_server(
                server,
                sock=sock,
                ssl=certificate.context,
                ssl_handshake_timeout=server.limits.header_wait,
                backlog=1024,
            )
            listeners.append(listener)
    if config.worker_socket:
        listeners.append(await _listen_to_workers(config.worker_socket, server))
    return listeners


async def _listen_to_workers(path: str, server: Server) -> asyncio.Server:
    """A socket that only this user can open: what comes from it is trusted to be as a proxy has stored it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - one that was killed left its own
    old_mask = os.umask(0o177)
    try:
        return await asyncio.get_running_loop().create_unix_server(server, path, backlog=1024)
    finally:
        os.umask(old_mask)


async def _until_idle(server: Server, enqueue: Enqueue, seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while (server.busy or server.listens or enqueue.running) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)


def main() -> None:
    die_with_parent()
    config = msgspec.json.decode(sys.argv[1], type=ProxyConfig)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s proxy {config.number} %(levelname)s %(message)s")
    uvloop.run(serve(config))


if __name__ == "__main__":
    main()
