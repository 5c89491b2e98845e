"""One call in a replica, whatever its mode makes of it: its place in the front, its end, its count.

The subclasses do the work: `handler_call.HandlerCall` runs a Python handler; other modes have their own.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from stoker_watchdog.logs import CallLog
from stoker_wire.server import IDLE, Exchange

if TYPE_CHECKING:
    from stoker_watchdog.front import Front


class Call:
    """Owner of an exchange. It asks the front for its turn (`admit`), runs when it has it, and says it is done."""

    __slots__ = ("_closed", "_exchange", "_front", "begun", "log", "runs")

    def __init__(self, front: Front, exchange: Exchange) -> None:
        self._front = front
        self._exchange = exchange
        self._closed = False
        self.runs = False
        self.begun = monotonic()
        self.log = CallLog(call_id(exchange))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.log.id} {'runs' if self.runs else 'waits'}>"

    @property
    def exchange(self) -> Exchange:
        return self._exchange

    @property
    def timeout_status(self) -> int:
        """What `respond_timeout` answers."""
        return 504

    # What a subclass does

    def begin(self) -> None:
        """The head is there. Gather what is needed, then `front.admit(self)`."""
        raise NotImplementedError

    def run(self) -> None:
        """It is this call's turn: make it. Sets `runs`."""
        raise NotImplementedError

    def stop(self) -> None:
        """Nobody waits for the answer any more: end what runs, and `finish` when it has ended."""
        raise NotImplementedError

    def respond_timeout(self) -> None:
        """The timeout has passed and nothing was answered yet: answer."""
        text = f"the call took longer than the function's timeout ({self._front.settings.timeout:g} s)\n"
        self._exchange.respond(504, TIMEOUT_BLOCK, text.encode())

    def release_input(self) -> None:
        """The call has ended: give back what the request's body took."""

    # Owner of the exchange

    def body(self, data: bytes) -> None: ...

    def body_end(self) -> None: ...

    def flush(self) -> None: ...

    def hold(self) -> None: ...

    def release(self) -> None: ...

    def client_gone(self) -> None:
        self.cancel()
        self._front.count(self._exchange, 499, self.begun)
        if not self.runs:
            self.finish()

    # Ends

    def expire(self) -> None:
        """The timeout has passed."""
        exchange = self._exchange
        if not exchange.finished:
            self._front.count(exchange, self.timeout_status, self.begun)
            if exchange.started:
                exchange.abort()
            else:
                self.respond_timeout()
        self.cancel()
        if not self.runs:
            self.finish()

    def cancel(self) -> None:
        self._closed = True
        self._exchange.owner = IDLE
        self.stop()

    def refuse(self, status: int, block: bytes, reason: str) -> None:
        """The front does not let it run."""
        self._exchange.respond(status, block, reason.encode())
        self._front.count(self._exchange, status, self.begun)
        self._exchange.owner = IDLE
        self.release_input()

    def finish(self) -> None:
        """Everything of this call has ended: the next may run."""
        self._exchange.owner = IDLE
        self.release_input()
        self._front.done(self)


def call_id(exchange: Exchange) -> str:
    """The request's call id, `-` without one."""
    for name, value in exchange.fields:
        if len(name) == 9 and name.lower() == b"x-call-id":
            return value.decode("latin-1")
    return "-"


TIMEOUT_BLOCK = b"Content-Type: text/plain; charset=utf-8\r\nX-Stoker-Error: function; timeout\r\n"
