"""Mode `streaming`: the request's body is the process's input as it comes, its output is the answer as it is produced.

The answer's head is sent with the first byte of output, so a process that fails before it gives a proper 500; one that
fails later breaks the connection off, where the contract's watchdog ends a cut answer as if it were whole.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from stoker_watchdog.program_call import ProgramCall
from stoker_wire.server import Exchange

if TYPE_CHECKING:
    from stoker_watchdog.front import Front
    from stoker_watchdog.program_runner import ProgramRunner


class StreamingCall(ProgramCall):
    """One call of a program that streams."""

    __slots__ = ("_feed",)

    def __init__(self, runner: ProgramRunner, front: Front, exchange: Exchange) -> None:
        super().__init__(runner, front, exchange)
        self._feed: Feed | None = None

    def begin(self) -> None:
        self._front.admit(self)
        if not self.runs and self._exchange.length:
            self._exchange.hold_body()

    def run(self) -> None:
        self.runs = True
        exchange = self._exchange
        if not exchange.length:
            self._start(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            return
        try:
            stdin, feeding = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            self._fail(500, b"function; cannot-start", f"no pipe can be made: {error.strerror}")
            return
        self._feed = Feed(self._front.loop, feeding, exchange.hold_body, exchange.release_body)
        if self._start(stdin):
            exchange.accept_body()
            exchange.release_body()

    # Owner of the exchange

    def body(self, data: bytes) -> None:
        if self._feed is not None:
            self._feed.write(data)

    def body_end(self) -> None:
        if self._feed is not None:
            self._feed.end()

    def hold(self) -> None:
        if self._process is not None:
            self._process.hold()

    def release(self) -> None:
        if self._process is not None:
            self._process.release()

    # Owner of the process

    def output(self, data: bytes) -> None:
        if self._closed or self._exchange.finished:
            return
        if not self._exchange.started:
            self._begin_answer()
        self.sent += len(data)
        self._exchange.write(data)
        self._exchange.flush()

    def _begin_answer(self) -> None:
        block = b"Content-Type: %b\r\n" % self._runner.options.content_type.encode("latin-1", "replace")
        self._exchange.start(200, block, None)

    def succeeded(self) -> None:
        if not self._exchange.started:
            self._begin_answer()
        self._exchange.finish()
        self.count(200)
        self.finish()

    def release_input(self) -> None:
        if self._feed is not None:
            self._feed.close()


class Feed:
    """Writes to a pipe what comes, and asks for a pause while the pipe is full. Closes it at the end.

    A process that does not read its input to the end is in its right: the rest is thrown away.
    """

    __slots__ = ("_descriptor", "_ended", "_hold", "_loop", "_release", "_rest")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, hold: Callable[[], None], release: Callable[[], None]
    ) -> None:
        os.set_blocking(descriptor, False)
        self._loop = loop
        self._descriptor = descriptor
        self._hold = hold
        self._release = release
        self._rest = b""
        self._ended = False

    def write(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
        elif self._descriptor >= 0:
            self._rest = self._put(data)
            if self._rest:
                self._hold()
                self._loop.add_writer(self._descriptor, self._go_on)

    def _put(self, data: bytes) -> bytes:
        try:
            return data[os.write(self._descriptor, data) :]
        except BlockingIOError:
            return data
        except OSError:
            self.close()
            return b""

    def _go_on(self) -> None:
        descriptor = self._descriptor
        self._rest = self._put(self._rest)
        if self._rest or self._descriptor < 0:
            return
        self._loop.remove_writer(descriptor)
        if self._ended:
            self.close()
        else:
            self._release()

    def end(self) -> None:
        """Everything has come: close the pipe when it is written."""
        self._ended = True
        if not self._rest:
            self.close()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            if self._rest:
                self._rest = b""
                self._loop.remove_writer(descriptor)
                if not self._ended:
                    self._release()
            os.close(descriptor)
