"""`POST /async-function/NAME[/rest]`: the request is stored, and answered 202 when the broker says so (contract 5.1).

What is stored is the request as it would go to a replica, so that the call which a worker makes later is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stoker_gateway.proxy.headers import error_block, request_head
from stoker_gateway.proxy.uploads import Uploads
from stoker_gateway.queue import keys
from stoker_gateway.queue.callback_url import check_callback_url
from stoker_gateway.queue.counters import CallCounting
from stoker_gateway.queue.key_store import KeyStore, Tied
from stoker_gateway.queue.keys import HEADER, KEPT, Claim, check_key, request_digest
from stoker_gateway.queue.link import Link
from stoker_gateway.queue.publisher import EXISTS, RESENT, STORED, TIMEOUT, Publisher
from stoker_gateway.queue.room import Room
from stoker_gateway.queue.settings import BrokerSettings, read_settings
from stoker_gateway.queue.stored import (
    MAX_BODY,
    MAX_INLINE,
    VERSION,
    VERSION_WITH_BODY,
    BodyRef,
    StoredCall,
    encode,
)
from stoker_gateway.queue.subjects import CALLS, OUTCOMES, bell_subject, by_id, call_subject
from stoker_gateway.queue.upload import MOST_SECONDS, Upload
from stoker_sdk.errors import BadInput, StokerError, Unavailable
from stoker_sdk.keeping import check_keep
from stoker_sdk.names import key_from_route
from stoker_wire.server import IDLE, Exchange

if TYPE_CHECKING:
    from nats.aio.client import Client

    from stoker_gateway.proxy.idempotent import IdempotentCall
    from stoker_gateway.proxy.proxy import Proxy

log = logging.getLogger("stoker.proxy")

DEADLINE: Final = 5.0
"""Seconds that a caller waits for the broker, its restart included."""
_MOST_WAITING: Final = 10_000
_BELL_SECONDS: Final = 1.0
_EXPLAIN_SECONDS: Final = 1.0
WINDOW: Final = 86400.0
"""Seconds for which an `Idempotency-Key` is tied to its call."""
REPEATED: Final = b"X-Stoker-Repeated: true\r\n"
"""Header of an answer to a key that an earlier request had."""
KEY_REUSED: Final = (
    "the Idempotency-Key was used for another request of this function: method, path, query or body differ; "
    "use a new key for a new request"
)
_KEEP_RESULT: Final = b"x-stoker-keep-result"
_LOOK_TWICE: Final = {RESENT: "1"}
"""Whoever repeats a key may store the call again that has just ended: the worker looks for its outcome first."""
_GIVEN_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")


class Enqueue:
    """A proxy's way to the broker: connected when the first call comes, since many platforms never see one.

    `broker_file` has the broker's settings; None: there is no broker. `folder` is where a broker of ours keeps all.
    `running` are the synchronous calls with a key, whose answers are to be stored though their clients may have gone.
    """

    def __init__(
        self,
        broker_file: Path | None,
        *,
        name: str = "proxy",
        limit: int = MAX_BODY,
        window: float = WINDOW,
        folder: Path | None = None,
    ) -> None:
        self.limit = limit
        self.window = window
        self.room = Room(folder)
        self.publisher: Publisher | None = None
        self.client: Client | None = None
        self.waiting = 0
        self.running: set[IdempotentCall] = set()
        self.counting = CallCounting()
        self._connections = 0
        self._link: Link | None = None
        self.uploads = Uploads(lambda: self.client)
        self._file = broker_file
        self._name = name
        self._rung: dict[str, float] = {}
        self._connecting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[str] | None = None

    def begin(self, proxy: Proxy, exchange: Exchange, key: str, rest: bytes) -> None:
        """Take the exchange: gather its body, store the call, answer. `rest` is path and query behind the name."""
        call = Enqueuing(self, proxy, exchange, key, rest)
        if exchange.method != b"POST":
            block = error_block(proxy, "client", "method-not-allowed", b"", retry=False) + b"Allow: POST\r\n"
            exchange.respond(405, block, b"calls are queued by POST; other methods are for /function/\n")
        elif not self.has_broker:
            call.refuse(501, "client", "no-queue", "async calls are switched off here: start without --no-async")
        elif exchange.length > self.limit:
            call.refuse_size()
        elif self.waiting >= _MOST_WAITING:
            call.refuse(503, "platform", "queue-busy", f"{self.waiting} calls wait for the broker already: try later")
        elif reason := self.room.refusal(max(0, exchange.length)):
            call.refuse(503, "platform", "queue-full", reason)
        else:
            self._connect()
            call.gather()

    @property
    def has_broker(self) -> bool:
        return self._file is not None

    async def keys(self, key: str) -> KeyStore:
        """The idempotency keys of the function. Raises `Unavailable`."""
        self._connect()
        deadline = time.monotonic() + DEADLINE
        while self.client is None or not self.client.is_connected:
            if time.monotonic() > deadline:
                raise Unavailable("the broker does not answer: try again later")
            await asyncio.sleep(0.05)
        return KeyStore(self.client, key_from_route(key), self.window)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run it, whoever waits for it or not."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _connect(self) -> None:
        if self.publisher is None:
            assert self._file is not None
            settings = read_settings(self._file)
            self._link = Link(settings, f"stoker {self._name}: calls")
            self._link.back.append(self._connected)
            self.publisher = Publisher(self._link, deadline=DEADLINE)
            self._connecting = asyncio.get_running_loop().create_task(self._open(settings), name="broker")

    async def _open(self, settings: BrokerSettings) -> None:
        from stoker_gateway.queue.connection import connect

        try:
            self.client = await connect(settings, f"stoker {self._name}")
        except (OSError, ValueError, StokerError) as error:
            log.error("no connection to the broker: %s", error)

    def _connected(self) -> None:
        self._connections += 1

    @property
    def reconnects(self) -> int:
        """How often the link came back."""
        return max(0, self._connections - 1)

    def ring(self, key: str, now: float) -> None:
        """Now and then tell the workers that this function has calls."""
        if self.publisher is not None and now - self._rung.get(key, -_BELL_SECONDS) >= _BELL_SECONDS:
            self._rung[key] = now
            self.publisher.tell(bell_subject(key_from_route(key)).encode())

    def check_id(self, id: str, then: Callable[[bool], None]) -> None:
        """Whether a caller's own id is free: no call, ended or not, has it."""
        self.spawn(self._check_id(id, then), "check id")

    async def _check_id(self, id: str, then: Callable[[bool], None]) -> None:
        from stoker_gateway.queue.lookup import any_of

        client = self.client
        try:
            assert client is not None
            taken = await any_of(client, OUTCOMES, by_id("outcome", id)) or await any_of(
                client, CALLS, by_id("call", id)
            )
        except (StokerError, AssertionError):
            then(False)  # not knowing, we take a new one
        else:
            then(taken is None)

    def explain(self, then: Callable[[str], None]) -> None:
        """What the broker says of publishes that it does not answer; empty when that is nothing. Asked once for all."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._explain(), name="explain")
        self._asking.add_done_callback(lambda task: then("" if task.cancelled() else task.result()))

    async def _explain(self) -> str:
        from stoker_gateway.queue.room import write_error

        if self.client is None or not self.client.is_connected:
            return ""
        try:
            async with asyncio.timeout(_EXPLAIN_SECONDS):
                return await write_error(self.client)
        except (StokerError, TimeoutError):
            return ""

    async def close(self) -> None:
        self.uploads.give_up()
        if self.publisher is not None:
            await self.publisher.drain(DEADLINE)
            await self.uploads.close(DEADLINE)
            self.publisher.close()
        if self._link is not None:
            self._link.close()
        if self._connecting is not None:
            self._connecting.cancel()
        if self.client is not None:
            await self.client.close()


class Enqueuing:
    """One exchange on its way into the queue. Owner of the exchange."""

    def __init__(self, enqueue: Enqueue, proxy: Proxy, exchange: Exchange, key: str, rest: bytes) -> None:
        self._enqueue = enqueue
        self._proxy = proxy
        self._exchange = exchange
        self._key = key
        self._rest = rest
        self._body: list[bytes] = []
        self._upload: Upload | None = None
        self._subject = ""
        self._id = b""
        self._at = 0
        self._begun = time.monotonic()
        self._callback = ""
        self._keep = 0.0
        self._tied: Tied | None = None
        self._gone = False

    def gather(self) -> None:
        self._exchange.owner = self
        self._enqueue.waiting += 1
        if self._exchange.length == 0:
            self.body_end()
        elif self._exchange.length <= MAX_INLINE or self._begin_upload():
            self._exchange.accept_body()

    # Owner of the exchange

    def body(self, data: bytes) -> None:
        if self._exchange.received > self._enqueue.limit:
            self._leave()
            self.refuse_size()
        elif self._upload is not None:
            self._add(self._upload, data)
        else:
            self._body.append(data)
            if self._exchange.received > MAX_INLINE:
                self._begin_upload()

    def body_end(self) -> None:
        if self._gone or self._id:
            return
        self._at = time.time_ns()
        given, keep, found = b"", "", []
        for name, value in self._exchange.fields:
            if len(name) == 9 and name.lower() == b"x-call-id":
                given = value
            elif len(name) == 14 and name.lower() == b"x-callback-url":
                self._callback = value.decode("latin-1")
            elif len(name) == 20 and name.lower() == _KEEP_RESULT:
                keep = value.decode("latin-1")
            elif len(name) == 15 and name.lower() == HEADER:
                found.append(value)
        code = "bad-callback"
        try:
            if self._callback:
                check_callback_url(self._callback)
            code = "bad-header"
            self._keep = check_keep(keep, "X-Stoker-Keep-Result") if keep else 0.0
            key = check_key(found) if found else b""
        except BadInput as error:
            self._leave()
            self.refuse(400, "client", code, str(error))
            return
        self._id = self._proxy.call_ids.next()
        if key:
            self._enqueue.spawn(self._tie(key), "idempotency key")
        elif _GIVEN_ID.fullmatch(given) and self._enqueue.client is not None:
            self._enqueue.check_id(given.decode(), lambda free: self._publish(given if free else self._id))
        else:
            self._publish(self._id)

    def flush(self) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...

    def client_gone(self) -> None:
        """Before the body's end nothing was stored; after it the call is, though nobody hears of it."""
        self._leave()

    # A large body

    def _begin_upload(self) -> bool:
        """From here on the body goes to the object store. False: it is refused."""
        enqueue = self._enqueue
        self._upload = enqueue.uploads.begin(enqueue.publisher, self._exchange, self._refused, self._forget_body)
        if self._upload is None:
            self._leave()
            self.refuse(503, "platform", "queue-busy", "many large bodies are on their way already: try later")
            return False
        gathered, self._body = deque(self._body), []
        while gathered and self._upload is not None:
            self._add(self._upload, gathered.popleft())
        return True

    def _add(self, upload: Upload, data: bytes) -> None:
        if reason := self._enqueue.room.refusal():
            self._leave()
            self.refuse(503, "platform", "queue-full", reason)
        elif upload.late:
            self._leave()
            self.refuse(408, "client", "body-too-slow", f"the body took longer than {MOST_SECONDS} s")
        else:
            upload.add(data)

    def _forget_body(self, name: str) -> None:
        self._enqueue.uploads.remove(name, self._subject)

    # The broker

    def _publish(self, id: bytes) -> None:
        self._id = id
        if self._gone:
            return
        if self._upload is not None:
            key = key_from_route(self._key)
            self._upload.end(f"{key.namespace}.{key.name}.{id.decode()}", self._store)
        else:
            self._store()

    def _store(self, large: BodyRef | None = None) -> None:
        """Publish the call, whose body is in our hands, or `large` and stored already."""
        publisher = self._enqueue.publisher
        body = b"".join(self._body)
        size = large.size if large is not None else len(body)
        framing = b"Content-Length: %d\r\n" % size if size or self._exchange.length else b""
        path = b"/function/%b%b" % (self._key.encode(), self._rest)
        begun = time.monotonic()
        _, head = request_head(self._proxy, self._exchange, path, begun, id=self._id, framing=framing)
        version = VERSION if large is None else VERSION_WITH_BODY
        call = StoredCall(version, self._id.decode(), self._key, self._at, self._callback, keep=self._keep, body=large)
        subject = self._subject = call_subject(key_from_route(self._key), call.id)
        message, tied = encode(call, head, body), self._tied
        again = _LOOK_TWICE if tied else None
        stream = CALLS if tied is None or tied.mine else ""  # no batch shall be refused because the call is there
        if publisher is None or not publisher.publish(subject, message, self._stored, again, stream=stream):
            self._subject = ""
            self._leave()
            self.refuse(503, "platform", "queue-busy", "too much waits for the broker already: try again later")

    def _stored(self, result: str) -> None:
        if result == STORED:
            self._enqueue.ring(self._key, time.monotonic())
        elif result != TIMEOUT:
            self._subject = ""  # the broker surely has no such call of ours
        kept = result == STORED
        if self._tied is not None and result in (STORED, EXISTS):
            self._enqueue.spawn(self._settle(self._tied), "idempotency key")
            result = STORED
        if result == EXISTS and not self._gone:  # the caller's id was taken meanwhile
            self._publish(self._proxy.call_ids.next())
            return
        self._end_upload(kept=kept)
        if self._gone:
            return
        if result == STORED:
            self._leave()
            self._accept()
        else:
            self._refused(result)

    def _refused(self, result: str) -> None:
        """The broker did not take the call, or a piece of its body."""
        if self._gone:
            return
        if result == TIMEOUT:
            self._enqueue.explain(self._unavailable)
        else:
            self._leave()
            self.refuse(503, "platform", "queue-full", f"the broker refuses the call: {result}")

    def _unavailable(self, reason: str) -> None:
        if self._gone:
            return
        self._leave()
        if reason:
            self.refuse(503, "platform", "queue-full", f"the broker cannot store the call: {reason}")
        else:
            self.refuse(503, "platform", "queue-unavailable", "the broker does not answer: try again later")

    def _accept(self) -> None:
        stamp = b"X-Call-Id: %b\r\nX-Start-Time: %d\r\n" % (self._id, self._at)
        repeated = REPEATED if self._tied and not self._tied.mine else b""
        if not repeated:
            self._count(202)
        self._exchange.respond(202, stamp + repeated + self._proxy.date_line, b"")

    # With an `Idempotency-Key`

    async def _tie(self, key: bytes) -> None:
        """The call gets the id that its key is tied to, which may be an earlier one's.

        A key may be tied to a call that is not stored, if a proxy was killed: whoever comes with it again stores that.
        """
        body = self._body if self._upload is None else [self._upload.digest.encode()]
        digest = request_digest(b"async", b"POST", self._rest, body)
        claim = Claim(keys.VERSION, self._id.decode(), digest, self._at)
        try:
            store = await self._enqueue.keys(self._key)
            tied = self._tied = await store.claim(key, claim)
            is_stored = not tied.mine and await store.has_call(tied.claim)
        except Unavailable as error:
            if not self._gone:
                self._leave()
                self.refuse(503, "platform", "queue-unavailable", str(error))
            return
        if self._gone:
            return
        self._id, self._at = tied.claim.id.encode(), tied.claim.at
        if tied.claim.digest != digest:
            self._leave()
            self.refuse(422, "client", "key-reused", KEY_REUSED)
        elif is_stored:
            self._leave()
            self._accept()
        else:
            self._publish(self._id)

    async def _settle(self, tied: Tied) -> None:
        with contextlib.suppress(Unavailable):  # the next one with the key looks for the call, then
            await (await self._enqueue.keys(self._key)).settle(tied, KEPT)

    def refuse_size(self) -> None:
        text = f"the body is larger than {self._enqueue.limit} bytes, the most that an async call may have"
        self.refuse(413, "client", "body-too-large", text)

    def refuse(self, status: int, side: str, code: str, reason: str) -> None:
        self._count(status)
        block = error_block(self._proxy, side, code, b"", retry=status == 503)
        self._exchange.owner = IDLE
        self._exchange.respond(status, block, f"{reason}\n".encode())

    def _count(self, status: int) -> None:
        self._enqueue.counting.enqueued(self._key, status, time.monotonic() - self._begun)

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            self._enqueue.waiting -= 1
            self._exchange.owner = IDLE
            self._body = []
            if not self._subject:  # else the broker may have the call
                self._end_upload(kept=False)

    def _end_upload(self, *, kept: bool) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            self._enqueue.uploads.end(upload, kept=kept)
