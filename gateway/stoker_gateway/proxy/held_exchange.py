"""What a call takes for its client's exchange, when its answer is to be looked at before the client gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from stoker_wire.server import Exchange

if TYPE_CHECKING:
    from stoker_wire.server import ServerConnection


class Taker(Protocol):
    """Who gets the answer, as the methods of `Exchange` have it."""

    def start(self, status: int, block: bytes, length: int | None) -> None: ...
    def write(self, data: bytes) -> None: ...
    def flush_answer(self) -> None: ...
    def finish(self) -> None: ...
    def respond(self, status: int, block: bytes, body: bytes) -> None: ...
    def abort(self) -> None: ...


class HeldExchange(Exchange):
    """The request of `client`, whose whole body is at hand and has `length` bytes; the answer goes to `taker`."""

    __slots__ = ("_peer", "_secure", "_taker")

    def __init__(self, taker: Taker, client: Exchange, length: int) -> None:
        super().__init__(cast("ServerConnection", None))  # what would need it is replaced below
        self._taker = taker
        self._peer = client.peer
        self._secure = client.secure
        self.method = client.method
        self.target = client.target
        self.host = client.host
        self.fields = client.fields
        self.length = self.received = length
        self.complete = True

    @property
    def peer(self) -> bytes:
        return self._peer

    @property
    def secure(self) -> bool:
        return self._secure

    def start(self, status: int, block: bytes, length: int | None) -> None:
        self.started = True
        self.status = status
        self._taker.start(status, block, length)

    def write(self, data: bytes) -> None:
        self._taker.write(data)

    def flush(self) -> None:
        self._taker.flush_answer()

    def finish(self) -> None:
        self.finished = True
        self._taker.finish()

    def respond(self, status: int, block: bytes, body: bytes) -> None:
        self.started = self.finished = True
        self.status = status
        self._taker.respond(status, block, body)

    def abort(self) -> None:
        self.finished = True
        self._taker.abort()

    def accept_body(self) -> None: ...
    def hold_body(self) -> None: ...
    def release_body(self) -> None: ...
