"""One async call on its way into the queue: its body is gathered, or uploaded; it is stored; then it is answered.

What is stored is the request as it would go to a replica, so that the call which a worker makes later is the same.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from stoker_gateway.proxy.headers import error_block, request_head
from stoker_gateway.proxy.wishes import NOTHING, BadCallback, read_wishes
from stoker_gateway.queue import keys
from stoker_gateway.queue.key_store import Tied
from stoker_gateway.queue.keys import KEPT, Claim, request_digest
from stoker_gateway.queue.publisher import EXISTS, RESENT, STORED, TIMEOUT
from stoker_gateway.queue.stored import MAX_INLINE, VERSION, VERSION_WITH_BODY, BodyRef, StoredCall, encode
from stoker_gateway.queue.subjects import CALLS, call_subject
from stoker_gateway.queue.upload import MOST_SECONDS, Upload
from stoker_sdk.errors import BadInput, Unavailable
from stoker_sdk.names import key_from_route
from stoker_wire.server import IDLE, Exchange

if TYPE_CHECKING:
    from stoker_gateway.proxy.enqueue import Enqueue
    from stoker_gateway.proxy.proxy import Proxy

_MOST_WAITING: Final = 10_000
REPEATED: Final = b"X-Stoker-Repeated: true\r\n"
"""Header of an answer to a key that an earlier request had."""
KEY_REUSED: Final = (
    "the Idempotency-Key was used for another request of this function: method, path, query or body differ; "
    "use a new key for a new request"
)
_LOOK_TWICE: Final = {RESENT: "1"}
"""Whoever repeats a key may store the call again that has just ended: the worker looks for its outcome first."""


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
        self._wishes = NOTHING
        self._tied: Tied | None = None
        self._gone = False

    def begin(self) -> None:
        """Refuse it at once, or gather its body."""
        enqueue, exchange = self._enqueue, self._exchange
        if exchange.method != b"POST":
            block = error_block(self._proxy, "client", "method-not-allowed", b"", retry=False) + b"Allow: POST\r\n"
            exchange.respond(405, block, b"calls are queued by POST; other methods are for /function/\n")
        elif not enqueue.has_broker:
            self.refuse(501, "client", "no-queue", "async calls are switched off here: start without --no-async")
        elif exchange.length > enqueue.limit:
            self.refuse_size()
        elif enqueue.waiting >= _MOST_WAITING:
            self.refuse(
                503, "platform", "queue-busy", f"{enqueue.waiting} calls wait for the broker already: try later"
            )
        elif reason := enqueue.room.refusal(max(0, exchange.length)):
            self.refuse(503, "platform", "queue-full", reason)
        elif self._read_wishes():
            enqueue.connect()
            self._gather()

    def _read_wishes(self) -> bool:
        try:
            self._wishes = read_wishes(self._exchange.fields)
        except BadInput as error:
            code = "bad-callback" if isinstance(error, BadCallback) else "bad-header"
            self.refuse(400, "client", code, str(error))
            return False
        return True

    def _gather(self) -> None:
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
        self._id = self._proxy.call_ids.next()
        given, key = self._wishes.id, self._wishes.key
        if key:
            self._enqueue.spawn(self._tie(key), "idempotency key")
        elif given and self._enqueue.client is not None:
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
        _, callback, keep, _ = self._wishes
        call = StoredCall(version, self._id.decode(), self._key, self._at, callback, keep=keep, body=large)
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
