"""A large body on its way into the object store, while it arrives.

One piece is on its way to the broker at a time, for a piece that is sent again must not come behind the next; meanwhile
the next is gathered, and when that is whole, the caller is held. So a body of any size takes the memory of three
pieces.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from stoker_gateway.queue.bodies import CHUNK, REPLACES, chunk_subject, encode_meta, meta_subject, new_name
from stoker_gateway.queue.publisher import STORED, TIMEOUT
from stoker_gateway.queue.stored import BodyRef

if TYPE_CHECKING:
    from stoker_gateway.queue.publisher import Publisher

MOST_SECONDS: Final = 6 * 3600
"""The longest that a body may take: what has no call is removed after twice that."""
_PAUSE: Final = 0.05
_TRIES: Final = 100


class Source(Protocol):
    """Where the body comes from."""

    def hold_body(self) -> None: ...
    def release_body(self) -> None: ...


class Upload:
    """Told of the body by `add`, and of its end by `end`. `failed` is called once at most, with a publisher's result;
    `forget` once if the upload comes to nothing: whatever there is of the object `name` is to be removed.
    """

    def __init__(
        self,
        publisher: Publisher,
        source: Source,
        failed: Callable[[str], None],
        forget: Callable[[str], None],
    ) -> None:
        self.name = new_name()
        self.size = 0
        self._begun = time.monotonic()
        self._publisher = publisher
        self._source = source
        self._failed = failed
        self._forget = forget
        self._gathered = bytearray()
        self._chunks = 0
        self._digest = hashlib.sha256()
        self._sending = False
        self._held = False
        self._given_up = False
        self._tries = 0
        self._call = ""
        self._done: Callable[[BodyRef], None] | None = None

    def __repr__(self) -> str:
        return f"<Upload {self.name} {self.size} bytes>"

    @property
    def late(self) -> bool:
        return time.monotonic() - self._begun > MOST_SECONDS

    @property
    def digest(self) -> str:
        """SHA-256 of what has come so far, hexadecimal."""
        return self._digest.hexdigest()

    def add(self, data: bytes) -> None:
        if self._given_up:
            return
        self.size += len(data)
        self._digest.update(data)
        self._gathered += data
        self._go_on()

    def end(self, call: str, done: Callable[[BodyRef], None]) -> None:
        """The body is whole, for this call (`NAMESPACE.NAME.ID`). Again, when it is for another after all."""
        self._call, self._done = call, done
        self._go_on()

    def give_up(self) -> None:
        """The call will not be made. What is on its way comes to its end first, or it would be left behind."""
        self._given_up = True
        self._gathered.clear()
        self._steer()
        if not self._sending:
            self._go()

    def _go(self) -> None:
        forget, self._forget = self._forget, lambda name: None
        if self._chunks:
            forget(self.name)

    def _go_on(self) -> None:
        if not self._sending and not self._given_up:
            if len(self._gathered) >= CHUNK or (self._done and self._gathered):
                self._send_chunk()
            elif self._done is not None:
                self._send_meta(self._done)
        self._steer()

    def _steer(self) -> None:
        full = len(self._gathered) >= CHUNK and self._done is None
        if full and not self._held:
            self._source.hold_body()
        elif self._held and not full:
            self._source.release_body()
        self._held = full

    def _send_chunk(self) -> None:
        chunk = bytes(memoryview(self._gathered)[:CHUNK])
        if self._publish(chunk_subject(self.name), chunk):
            del self._gathered[:CHUNK]
            self._chunks += 1

    def _send_meta(self, done: Callable[[BodyRef], None]) -> None:
        body = BodyRef(self.name, self.size, self._chunks, self.digest)

        def stored() -> None:
            self._done = None
            done(body)

        self._publish(meta_subject(self.name), encode_meta(body, [self._call]), REPLACES, stored)

    def _publish(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        then: Callable[[], None] | None = None,
    ) -> bool:
        def acknowledged(result: str) -> None:
            self._sending = False
            if self._given_up:
                self._go()
            elif result != STORED:
                self._fail(result)
            elif then is not None:
                then()
            else:
                self._go_on()

        self._sending = True
        if self._publisher.publish(subject, payload, acknowledged, headers):
            self._tries = 0
            return True
        # Too much waits for the broker: others come first.
        self._tries += 1
        asyncio.get_running_loop().call_later(_PAUSE, self._try_again)
        return False

    def _try_again(self) -> None:
        self._sending = False
        if self._given_up:
            self._go()
        elif self._tries > _TRIES:
            self._fail(TIMEOUT)
        else:
            self._go_on()

    def _fail(self, result: str) -> None:
        self.give_up()
        self._failed(result)
