"""A worker: takes stored calls, has proxies make them, settles them. Any number may run, on any number of machines.

    python -m stoker_gateway.queue.worker SETTINGS-JSON

It follows control's route table like a proxy. SIGTERM: nothing new is taken, what runs may finish for a while, and what
is left is handed back to the broker.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
import sys
import uuid
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvloop

from stoker_gateway.link import MAX_LINE as MAX_LINK_LINE
from stoker_gateway.link import Ack, Change, Count, Counted, Table, decode_for_proxy, encode
from stoker_gateway.queue import outcomes
from stoker_gateway.queue.callback_queue import CallbackQueue
from stoker_gateway.queue.counters import DELIVERED, FAILED, CallCounting
from stoker_gateway.queue.lane import Lane
from stoker_gateway.queue.link import Link
from stoker_gateway.queue.losses import Quarantine
from stoker_gateway.queue.outcomes import Running
from stoker_gateway.queue.publisher import Publisher
from stoker_gateway.queue.run import HAND_BACK
from stoker_gateway.queue.subjects import BELLS, CALLS, CANCEL, DOUBTS, RUNNING, key_and_id, of_functions
from stoker_gateway.routes import Route
from stoker_sdk.broker.connection import connect
from stoker_sdk.broker.lookup import first_of
from stoker_sdk.broker.requests import last_sequence
from stoker_sdk.broker.settings import read_settings
from stoker_sdk.errors import StokerError, Unavailable
from stoker_sdk.names import key_from_route
from stoker_sdk.processes import die_with_parent, say_ready
from stoker_wire.client import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.client import Client

    from stoker_gateway.queue.callbacks import Callbacks
    from stoker_gateway.queue.download import Download

log = logging.getLogger("stoker.worker")

_MAX_CANCELLED: Final = 10_000
_COUNTERS_SECONDS: Final = 1.0
_SWEEP_SECONDS: Final = 0.5


class CallbackSettings(msgspec.Struct, frozen=True):
    """Which addresses callbacks may call (`addresses.py`), and the file with the secret that signs them, or empty."""

    allow: list[str] = []
    deny: list[str] = []
    private_allowed: bool = False
    secret_file: str = ""


class WorkerSettings(msgspec.Struct, frozen=True):
    """What the supervisor tells a worker. Times are in seconds; `workers` share the slots of this machine.

    `removed_after`: calls of a function that was removed wait so long for it to come back, and are dead then.
    """

    number: int
    workers: int
    broker_file: str
    table_socket: str
    proxy_sockets: list[str]
    drain_seconds: float
    ready_fd: int
    ack_wait: float = 30.0
    removed_after: float = 300.0
    callbacks: CallbackSettings = CallbackSettings()


class Worker:
    """All lanes of one process, and what they share: connection, publisher, pool of connections to proxies."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._broker = read_settings(Path(settings.broker_file))
        self.link = Link(self._broker, f"stoker worker {settings.number}: calls")
        self.publisher = Publisher(self.link)
        self.pool = Pool()
        self.lanes: dict[str, Lane] = {}
        self.cancelled: OrderedDict[str, None] = OrderedDict()
        self.quarantine = Quarantine()
        self.counting = CallCounting()
        self._connections = 0
        self._control: asyncio.StreamWriter | None = None
        self.stopping = False
        # Calls up to this sequence may have run before: a broker that was killed may have forgotten how often it has
        # delivered them, and that they were acknowledged. They are looked up first; later ones are new.
        self.doubtful = math.inf
        self.client: Client
        self.inbox = f"_INBOX.{uuid.uuid4().hex}"
        self._inbox = self.inbox.encode()
        self._numbered: list[Lane] = []
        self._routes: dict[str, Route] = {}
        self._unseen: asyncio.Queue[str] = asyncio.Queue()
        self._turn = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._doubting: asyncio.Task[None] | None = None
        self.downloads: set[Download] = set()
        self._removals: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect, however long that takes, and begin."""
        self.client = await connect(self._broker, f"stoker worker {self.settings.number}")
        for subject, heard in (
            (f"{self.inbox}.>", self._heard),
            (BELLS, self._bell),
            (DOUBTS, self._doubt_function),
            (CANCEL, self._cancel),
            (RUNNING, self._tell_running),
        ):
            self.link.subscribe(subject, heard)
        self.link.back.append(self._reconnected)
        if self.link.connected:
            self._connections += 1
            self._doubt()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._follow_table(), name="table link"),
            loop.create_task(self._look_for_calls(), name="look for calls"),
            loop.create_task(self._sweep(), name="sweep"),
            loop.create_task(self._say_that_we_run(), name="in progress"),
            loop.create_task(self._deliver_callbacks(), name="callbacks"),
            loop.create_task(self._send_counters(), name="counters"),
        ]

    async def stop(self) -> None:
        """Let running calls finish, hand back the others, and close."""
        self.stopping = True
        deadline = asyncio.get_running_loop().time() + self.settings.drain_seconds
        while any(lane.runs for lane in self.lanes.values()) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for run in [run for lane in self.lanes.values() for run in lane.runs.values()]:
            run.abandon(HAND_BACK)
        await self.publisher.drain(3.0)
        if self._removals:
            await asyncio.wait(self._removals, timeout=1.0)
        for task in self._tasks:
            task.cancel()
        self.publisher.close()
        self.pool.close()
        self.link.close()
        await self.client.close()

    async def _deliver_callbacks(self) -> None:
        secret = _read_secret(self.settings.callbacks.secret_file)
        await CallbackQueue(self.client, lambda: _make_callbacks(self.settings), secret, self._called_back).run()

    def _called_back(self, key: str, delivered: bool) -> None:
        self.counting.called_back(key, DELIVERED if delivered else FAILED)

    # What lanes use

    def proxy_for(self, lane: Lane) -> str:
        """Calls of one function go to one proxy, which then knows all of them when it counts its concurrency."""
        sockets = self.settings.proxy_sockets
        return f"unix:{sockets[zlib.crc32(lane.key.encode()) % len(sockets)]}"

    def remove_body(self, name: str) -> None:
        """A large body's call is done. What fails is left to control."""
        task = asyncio.get_running_loop().create_task(self._remove_body(name), name=f"remove {name}")
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _remove_body(self, name: str) -> None:
        from stoker_gateway.queue.bodies import remove

        try:
            await remove(self.client, name)
        except Unavailable as error:
            log.debug("%s", error)

    def lane(self, key: str) -> Lane:
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(self, len(self._numbered), key)
            self._numbered.append(lane)
            lane.update(self._routes.get(key))
            lane.open()
        return lane

    # From the broker

    def _heard(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        """What pulls bring: calls under their own subject, and words about a pull under ours."""
        if subject.startswith(self._inbox):
            number, _, generation = subject[len(self._inbox) + 1 :].partition(b".")
            self._numbered[int(number)].pull_ended(int(generation), headers)
        elif (found := key_and_id(subject.decode("utf-8", "replace"))) is not None and str(found[0]) in self.lanes:
            self.lanes[str(found[0])].delivered(found[1], reply, headers, payload)
        else:
            log.error("a message under %r, which no call can have, is dropped", subject[:200])
            self.publisher.tell(reply, b"+TERM")

    def _bell(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        _, _, namespace, name = subject.decode("utf-8", "replace").split(".")
        self.lane(f"{name}.{namespace}")

    def _doubt_function(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        _, _, namespace, name = subject.decode("utf-8", "replace").split(".")
        if payload.isdigit():
            lane = self.lane(f"{name}.{namespace}")
            lane.doubtful = max(lane.doubtful, int(payload))

    def _cancel(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        id = payload.decode("ascii", "replace")
        self.cancelled[id] = None
        if len(self.cancelled) > _MAX_CANCELLED:
            self.cancelled.popitem(last=False)
        for lane in self.lanes.values():
            if (run := lane.runs.get(id)) is not None:
                run.abandon(b"+TERM")

    def _tell_running(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        """The question names an id, or nothing for all."""
        wanted = payload.decode("ascii", "replace")
        running = [
            Running(run.id, lane.key, run.started)
            for lane in self.lanes.values()
            for run in lane.runs.values()
            if run.started and wanted in ("", run.id)
        ]
        self.publisher.tell(reply, outcomes.encode(running))

    def _reconnected(self) -> None:
        self._connections += 1
        self._doubt()
        for lane in self.lanes.values():
            for run in lane.runs.values():
                run.still_running()
            lane.reconnected()
        for key in self._routes:
            self._unseen.put_nowait(key)

    def _doubt(self) -> None:
        self.doubtful = math.inf
        if self._doubting is not None:
            self._doubting.cancel()
        self._doubting = asyncio.get_running_loop().create_task(self._end_doubt(), name="doubt")

    async def _end_doubt(self) -> None:
        while True:
            try:
                self.doubtful = await last_sequence(self.client, CALLS)
                return
            except Unavailable as error:
                log.debug("%s", error)
                await asyncio.sleep(0.5)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for lane in list(self.lanes.values()):
                if lane.sweep and self.link.connected:
                    try:
                        await lane.sweep.run(self.client)
                    except Unavailable as error:
                        log.debug("%s: %s", lane.key, error)

    async def _say_that_we_run(self) -> None:
        while True:
            await asyncio.sleep(self.settings.ack_wait / 3)
            now = asyncio.get_running_loop().time()
            for lane in self.lanes.values():
                lane.look_after(now)
                for run in lane.runs.values():
                    run.still_running()

    async def _look_for_calls(self) -> None:
        """A function's calls may have come before we listened for its bell."""
        while True:
            key = await self._unseen.get()
            if key in self.lanes:
                continue
            try:
                if await first_of(self.client, CALLS, of_functions("call", *key_from_route(key))) is not None:
                    self.lane(key)
            except Unavailable as error:
                log.warning("%s: %s", key, error)
                await asyncio.sleep(1)
                self._unseen.put_nowait(key)

    # From control

    async def _follow_table(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self.settings.table_socket, limit=MAX_LINK_LINE)
                self._control = writer
                while line := await reader.readline():
                    self._take(decode_for_proxy(line), writer)
                writer.close()
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                log.debug("table link: %s", error)
            self._control = None
            await asyncio.sleep(0.1)

    async def _send_counters(self) -> None:
        """Now and then unasked, so that a worker which is killed takes little of what it counted along."""
        sent = 0
        while True:
            await asyncio.sleep(_COUNTERS_SECONDS)
            if self._control is not None and sent != self.counting.version:
                sent = self.counting.version
                self._control.write(encode(self._counted(0)))

    def _counted(self, question: int) -> Counted:
        for lane in self.lanes.values():
            self.counting.running(lane.key, sum(1 for run in lane.runs.values() if run.started))
        return Counted(question, [], self.counting.all(), {"queue_worker": max(0, self._connections - 1)})

    def _take(self, message: Any, writer: asyncio.StreamWriter) -> None:
        if isinstance(message, Table):
            gone = self._routes.keys() - {route.key for route in message.routes}
            for key in gone:
                self._put(key, None)
            for route in message.routes:
                self._put(route.key, route)
            writer.write(encode(Ack(message.version)))
        elif isinstance(message, Change):
            self._put(message.key, message.route)
            writer.write(encode(Ack(message.version)))
        elif isinstance(message, Count):
            writer.write(encode(self._counted(message.question)))

    def _put(self, key: str, route: Route | None) -> None:
        if route is None:
            self._routes.pop(key, None)
        else:
            if key not in self._routes:
                self._unseen.put_nowait(key)
            self._routes[key] = route
        if key in self.lanes:
            self.lanes[key].update(route)


def _make_callbacks(settings: WorkerSettings) -> tuple[Callbacks, Callable[[], None]]:
    """And what closes their guard."""
    from stoker_gateway.queue.addresses import Guard
    from stoker_gateway.queue.callbacks import Callbacks, in_cluster

    allowed = settings.callbacks
    guard = Guard(allowed.allow, allowed.deny, private_allowed=allowed.private_allowed)
    return Callbacks(guard, inside=in_cluster([Path(path) for path in settings.proxy_sockets])), guard.close


def _read_secret(path: str) -> bytes | None:
    return Path(path).read_bytes().strip() if path else None


async def serve(settings: WorkerSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = Worker(settings)
    starting = asyncio.get_running_loop().create_task(worker.start(), name="start")
    say_ready(settings.ready_fd, b"ready")  # a broker that does not answer yet is waited for, but nobody waits for us
    stopping = asyncio.get_running_loop().create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return
    starting.result()
    gc.collect()
    gc.freeze()
    await stopping
    await worker.stop()


def main() -> None:
    die_with_parent()
    settings = msgspec.json.decode(sys.argv[1], type=WorkerSettings)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s worker {settings.number} %(levelname)s %(message)s")
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    try:
        uvloop.run(serve(settings))
    except StokerError as error:
        log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
