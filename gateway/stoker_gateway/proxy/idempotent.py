"""A synchronous call with an `Idempotency-Key`, of a function that asks for it: made once, its answer kept.

The key is claimed before the call is made, and the answer is stored before it is sent, so whoever comes again with the
key gets the answer that the first one got or would have got: the call goes on when its client leaves. What there is no
whole answer to binds nobody: a call that broke off, what the platform itself answers, and 429, 502, 503 and 504,
whoever says them, release the key. The claim of a proxy that was killed counts until its call must have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

from stoker_gateway.proxy.call import Call
from stoker_gateway.proxy.enqueue import Enqueue
from stoker_gateway.proxy.enqueuing import KEY_REUSED, REPEATED
from stoker_gateway.proxy.entry import Entry
from stoker_gateway.proxy.headers import error_block
from stoker_gateway.proxy.held_exchange import HeldExchange
from stoker_gateway.queue import kept, keys
from stoker_gateway.queue.kept import BadAnswer, KeptAnswer
from stoker_gateway.queue.key_store import KeyStore, Tied
from stoker_gateway.queue.keys import KEPT, OPEN, PASSED, Claim, check_key, request_digest
from stoker_gateway.queue.stored import MAX_INLINE
from stoker_sdk.errors import BadInput, Unavailable
from stoker_wire.server import IDLE, Exchange

if TYPE_CHECKING:
    from stoker_gateway.proxy.proxy import Proxy

log = logging.getLogger("stoker.proxy")

MAX_KEPT: Final = 1024 * 1024
"""Bytes of an answer that is kept; a longer one, and a stream of events, is passed on as it comes."""
_RELEASING: Final = frozenset((429, 502, 503, 504))
_SLACK: Final = 15.0
"""Seconds beyond a function's timeout after which its call has ended: claim and answer each wait for the broker."""
_EVENTS: Final = b"content-type: text/event-stream"
_NOT_KEPT: Final = b"X-Stoker-Not-Kept: %b\r\n"
_TOO_LARGE: Final = b"larger than %d bytes, or a stream" % MAX_KEPT


def take_keyed(enqueue: Enqueue, proxy: Proxy, exchange: Exchange, entry: Entry, path: bytes) -> bool:
    """Take the exchange if it has a key. Workers and upgrades pass: what is queued has its key where it is queued."""
    found = keys.keys_of(exchange.fields)
    if not found or not exchange.peer or exchange.upgrade:
        return False
    call = IdempotentCall(enqueue, proxy, exchange, entry, path)
    try:
        key = check_key(found)
    except BadInput as error:
        call.refuse(400, "client", "bad-header", str(error))
        return True
    if not enqueue.has_broker:
        call.refuse(
            501, "client", "no-queue", "keys are kept by the broker, and there is none: start without --no-async"
        )
    elif exchange.length > call.limit:
        call.refuse_size()
    else:
        call.gather(key)
    return True


class IdempotentCall:
    """Owner of the client's exchange; its `Call` has a stand-in for that, by which the answer comes here."""

    def __init__(self, enqueue: Enqueue, proxy: Proxy, exchange: Exchange, entry: Entry, path: bytes) -> None:
        self.limit = min(enqueue.limit, MAX_INLINE)  # the body is held in memory while its key is looked for
        self._enqueue = enqueue
        self._proxy = proxy
        self._exchange = exchange
        self._entry = entry
        self._path = path
        self._key = b""
        self._request: list[bytes] = []
        self._gone = False
        self._store: KeyStore
        self._tied: Tied
        self._call: Call | None = None
        self._head: tuple[int, bytes, int | None] = 0, b"", None
        self._body: list[bytes] = []
        self._size = 0
        self._passes = False  # what comes is passed on, when that has been stored
        self._is_open = False  # and now it has been
        self._is_broken = False
        self._is_held = False  # by the client
        self._over = False  # nothing more will come
        self._changing = asyncio.Lock()  # the claim

    def gather(self, key: bytes) -> None:
        self._key = key
        self._exchange.owner = self
        if self._exchange.length == 0:
            self.body_end()
        else:
            self._exchange.accept_body()

    # Owner of the client's exchange

    def body(self, data: bytes) -> None:
        if self._exchange.received > self.limit:
            self.refuse_size()
        else:
            self._request.append(data)

    def body_end(self) -> None:
        if not self._gone:
            self._enqueue.spawn(self._begin(), "idempotent call")

    def flush(self) -> None: ...

    def hold(self) -> None:
        self._is_held = True
        if self._call is not None and self._is_open:
            self._call.hold()

    def release(self) -> None:
        self._is_held = False
        if self._call is not None and self._is_open:
            self._call.release()

    def client_gone(self) -> None:
        """A call whose answer is kept goes on; one whose answer is passed on has nobody left to pass it to."""
        self._gone = True
        if self._call is not None and self._is_open and not self._over:
            self._leave(self._call)

    def _leave(self, call: Call) -> None:
        call.client_gone()
        self.abort()

    # The key

    async def _begin(self) -> None:
        try:
            self._store = await self._enqueue.keys(self._entry.key)
            await self._claim()
        except Unavailable as error:
            self.refuse(503, "platform", "queue-unavailable", str(error))

    async def _claim(self) -> None:
        digest = request_digest(b"sync", self._exchange.method, self._path, self._request)
        tied = await self._store.claim(self._key, self._fresh(digest))
        if tied.claim.digest != digest:
            self.refuse(422, "client", "key-reused", KEY_REUSED)
            return
        if not tied.mine:
            if await self._repeat(tied):
                return
            tied = await self._store.claim(self._key, self._fresh(digest), replaces=tied.sequence)
        if tied.mine:
            self._make(tied)
        else:
            self._refuse_running()

    def _fresh(self, digest: str) -> Claim:
        now = time.time_ns()
        until = now / 1e9 + self._entry.timeout + _SLACK
        return Claim(keys.VERSION, self._proxy.call_ids.next().decode(), digest, now, until)

    async def _repeat(self, tied: Tied) -> bool:
        """Answer for the call that has the key; False if that was lost."""
        claim = tied.claim
        stored = await self._store.answer(claim)
        if stored is not None:
            self._answer_again(stored)
        elif claim.state != OPEN:
            self.refuse(409, "client", "answer-not-kept", "the call with this key has run, and its answer is not kept")
        elif claim.until > time.time():
            self._refuse_running()
        else:
            return False
        return True

    def _answer_again(self, stored: bytes) -> None:
        try:
            answer, body = kept.decode(stored)
        except BadAnswer as error:
            self.refuse(409, "client", "answer-not-kept", f"the call with this key has run; of its answer, {error}")
            return
        self._send(answer.status, kept.block_of(answer.fields) + REPEATED, answer.length, [body])

    # The call

    def _make(self, tied: Tied) -> None:
        """Make it, with the whole request at hand."""
        self._tied = tied
        self._enqueue.running.add(self)
        held = HeldExchange(self, self._exchange, sum(map(len, self._request)))
        body, self._request = self._request, []
        self._call = Call(self._proxy, held, self._entry, self._path)
        self._call.begin()
        for data in body:
            held.owner.body(data)
        if held.length:
            held.owner.body_end()
        held.owner.flush()

    def start(self, status: int, block: bytes, length: int | None) -> None:
        self._head = status, block, length
        if _EVENTS in block.lower() or (self._exchange.method != b"HEAD" and (length or 0) > MAX_KEPT):
            self._pass_on()

    def write(self, data: bytes) -> None:
        if self._is_open:
            if not self._gone:
                self._exchange.write(data)
            return
        self._body.append(data)
        self._size += len(data)
        if self._size > MAX_KEPT:
            self._pass_on()

    def flush_answer(self) -> None:
        if self._is_open and not self._gone:
            self._exchange.flush()

    def finish(self) -> None:
        self._over = True
        if not self._passes:
            self._enqueue.spawn(self._keep(), "keep an answer")
        elif self._is_open:
            self._enqueue.running.discard(self)
            if not self._gone:
                self._exchange.owner = IDLE
                self._exchange.finish()

    def respond(self, status: int, block: bytes, body: bytes) -> None:
        """The platform's own word: the function has given none."""
        self._over = True
        self._enqueue.spawn(self._give_up(status, block, len(body), [body]), "release a key")

    def abort(self) -> None:
        self._over = self._is_broken = True
        self._enqueue.spawn(self._break_off(), "release a key")

    # What becomes of the answer

    def _pass_on(self) -> None:
        if self._call is not None and not self._passes:
            self._passes = True
            self._call.hold()
            self._enqueue.spawn(self._open(), "pass an answer on")

    async def _open(self) -> None:
        """Say that this answer is not kept, then begin to pass it on."""
        async with self._changing:
            with contextlib.suppress(Unavailable):
                self._tied = await self._store.settle(self._tied, PASSED)
        if self._is_broken or self._call is None:
            return
        if self._gone:
            self._leave(self._call)
            return
        self._is_open = True
        status, block, length = self._head
        self._exchange.start(status, block + _NOT_KEPT % _TOO_LARGE, length)
        for data in self._body:
            self._exchange.write(data)
        self._body = []
        self._exchange.flush()
        if self._over:
            self.finish()
        elif not self._is_held:
            self._call.release()

    async def _keep(self) -> None:
        """Store the answer, then send it."""
        status, block, length = self._head
        if status in _RELEASING:
            await self._give_up(status, block, length, self._body)
            return
        answer = KeptAnswer(kept.VERSION, status, kept.fields_of(block), length)
        try:
            await self._store.put_answer(self._tied, kept.encode(answer, b"".join(self._body)))
        except Unavailable as error:
            log.warning("the answer of a call of %s with a key is not kept: %s", self._entry.key, error)
            self._send(status, block + _NOT_KEPT % b"the broker did not store it", length, self._body)
            self._enqueue.running.discard(self)
            return
        self._send(status, block, length, self._body)
        self._enqueue.running.discard(self)
        with contextlib.suppress(Unavailable):  # whoever comes next looks for the answer
            await self._store.settle(self._tied, KEPT)

    async def _give_up(self, status: int, block: bytes, length: int | None, body: list[bytes]) -> None:
        await self._release()
        self._send(status, block, length, body)

    async def _break_off(self) -> None:
        await self._release()
        if self._is_open and not self._gone:
            self._exchange.owner = IDLE
            self._exchange.abort()
        else:
            self.refuse(502, "function", "answer-broken", f"the answer of {self._entry.key} broke off")

    async def _release(self) -> None:
        async with self._changing:
            with contextlib.suppress(Unavailable):  # its time passes, then
                await self._store.release(self._tied)
        self._enqueue.running.discard(self)

    # To the client

    def _send(self, status: int, block: bytes, length: int | None, body: list[bytes]) -> None:
        if not self._gone:
            self._exchange.owner = IDLE
            self._exchange.start(status, block, length)
            for data in body:
                self._exchange.write(data)
            self._exchange.finish()

    def _refuse_running(self) -> None:
        self.refuse(409, "client", "still-running", "a call with this Idempotency-Key is running: ask again later")

    def refuse_size(self) -> None:
        text = f"the body is larger than {self.limit} bytes, the most that a call with a key may have"
        self.refuse(413, "client", "body-too-large", text)

    def refuse(self, status: int, side: str, code: str, reason: str) -> None:
        retry = status == 503 or code == "still-running"
        text = f"{reason}\n".encode()
        self._send(status, error_block(self._proxy, side, code, b"", retry=retry), len(text), [text])
