"""One call in a replica: gather its body, run the handler in the way of its shape, answer, stream, count.

A plain function runs in a thread, so it never blocks health, readiness or other calls; an `async def` runs as a task.
Generators are read one piece at a time, and only as fast as the client takes them.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from stoker_watchdog.event import Body, Event
from stoker_watchdog.handler import Answer, HandlerError, answer_from, chunk_bytes
from stoker_watchdog.logs import CallLog, current_call
from stoker_wire.server import IDLE, Exchange

if TYPE_CHECKING:
    from stoker_watchdog.front import Front

_PIECES_AHEAD = 4


class Call:
    """Owner of an exchange. `front` decides when it may run."""

    __slots__ = (
        "_body",
        "_closed",
        "_exchange",
        "_front",
        "_held",
        "_owed",
        "_released",
        "_room",
        "_runs",
        "_task",
        "begun",
        "log",
    )

    def __init__(self, front: Front, exchange: Exchange) -> None:
        self._front = front
        self._exchange = exchange
        self._body = Body()
        self._task: asyncio.Task[None] | None = None
        self._room: threading.Semaphore | None = None
        self._released: asyncio.Event | None = None
        self._held = False
        self._owed = 0
        self._closed = False
        self._runs = False
        self.begun = monotonic()
        self.log = CallLog(_call_id(exchange))

    def __repr__(self) -> str:
        return f"<Call {self.log.id} {'runs' if self._runs else 'waits'}>"

    # Owner of the exchange

    def body(self, data: bytes) -> None:
        self._body.add(data)

    def body_end(self) -> None:
        self._front.admit(self)

    def flush(self) -> None: ...

    def client_gone(self) -> None:
        self.cancel()
        self._front.count(self._exchange, 499, self.begun)
        if not self._runs:
            self._finish()

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        self._held = False
        if self._room is not None:
            self._room.release(self._owed)
            self._owed = 0
        if self._released is not None:
            self._released.set()

    # Running

    def run(self) -> None:
        """It is this call's turn."""
        self._runs = True
        handler = self._front.handler
        if handler.is_async:
            self._task = self._front.loop.create_task(self._run_async(), name=f"call {self.log.id}")
        else:
            self._front.threads.run(self._run_in_thread)

    def _arguments(self) -> tuple[Any, ...]:
        exchange = self._exchange
        event = Event(exchange.method, exchange.target, exchange.fields, self._body)
        if self._front.handler.takes_event:
            return event, self._front.context.for_call(self.log.id)
        return (event.text,)

    def _run_in_thread(self) -> None:
        if self._closed:
            self._front.threads.post(self._ended, None, None)
            return
        token = current_call.set(self.log)
        try:
            result = self._front.handler.call(*self._arguments())
            answer = answer_from(result)
        except BaseException as error:  # whatever a handler raises, SystemExit included, is its failure
            self._front.threads.post(self._failed, error, None)
        else:
            if isinstance(answer.body, bytes):
                self._front.threads.post(self._answer, answer, None)
            else:
                self._stream_from_thread(answer)
        finally:
            self._front.log.end_call(self.log)
            current_call.reset(token)

    async def _run_async(self) -> None:
        current_call.set(self.log)
        try:
            result = self._front.handler.call(*self._arguments())
            if inspect.isawaitable(result):
                result = await result
            answer = answer_from(result)
            if isinstance(answer.body, bytes):
                self._answer(answer, None)
            elif hasattr(answer.body, "__aiter__"):
                await self._stream_async(answer, answer.body)
            else:
                self._front.threads.run(lambda: self._stream_in_thread(answer))
        except asyncio.CancelledError:
            self._ended(None, None)
        except BaseException as error:
            self._failed(error, None)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                return
        finally:
            self._front.log.end_call(self.log)

    # Answering, in the loop

    def _answer(self, answer: Answer, _: None) -> None:
        exchange = self._exchange
        if not self._closed and not exchange.finished:
            exchange.respond(answer.status, answer.block, answer.body)
            self._front.count(exchange, answer.status, self.begun)
        self._finish()

    def _failed(self, error: BaseException, _: None) -> None:
        self._front.log.exception(self.log.id, "the handler failed", error)
        exchange = self._exchange
        if self._closed or exchange.finished:
            pass
        elif exchange.started:
            exchange.abort()
        else:
            self._respond_failure(error)
        if not self._closed:
            self._front.count(exchange, 500, self.begun)
        self._finish()

    def _respond_failure(self, error: BaseException) -> None:
        what = str(error) if isinstance(error, HandlerError) else f"the handler raised {type(error).__name__}"
        body = f"{what}; the traceback is in the log under call id {self.log.id}\n".encode()
        self._exchange.respond(500, FAILED_BLOCK, body)

    def expire(self) -> None:
        """The timeout has passed. A thread cannot be stopped: it goes on without anybody to hear it."""
        exchange = self._exchange
        if not exchange.finished:
            self._front.count(exchange, 504, self.begun)
            if exchange.started:
                exchange.abort()
            else:
                limit = f"{self._front.settings.timeout:g} s"
                exchange.respond(
                    504,
                    TIMEOUT_BLOCK,
                    f"the call took longer than the function's timeout ({limit})\n".encode(),
                )
        self.cancel()
        if not self._runs:
            self._finish()

    def cancel(self) -> None:
        """Nobody waits for the answer: a task is cancelled, a generator is closed at its next piece."""
        self._closed = True
        self._exchange.owner = IDLE
        if self._task is not None:
            self._task.cancel()
        if self._room is not None:
            self._room.release()

    def _ended(self, _: None, __: None) -> None:
        self._finish()

    def _finish(self) -> None:
        self._exchange.owner = IDLE
        self._task = None
        self._body.close()
        self._front.done(self)

    # Streaming

    def _stream_from_thread(self, answer: Answer) -> None:
        if hasattr(answer.body, "__aiter__"):
            self._front.threads.post(self._stream_as_task, answer, None)
        else:
            self._stream_in_thread(answer)

    def _stream_as_task(self, answer: Answer, _: None) -> None:
        self._task = self._front.loop.create_task(self._run_stream(answer), name=f"call {self.log.id}")

    async def _run_stream(self, answer: Answer) -> None:
        current_call.set(self.log)
        try:
            await self._stream_async(answer, answer.body)
        except asyncio.CancelledError:
            self._ended(None, None)
        except BaseException as error:
            self._failed(error, None)

    async def _stream_async(self, answer: Answer, pieces: AsyncIterator[Any]) -> None:
        self._begin_stream(answer, None)
        async for piece in pieces:
            self._write(chunk_bytes(piece), None)
            if self._held:
                self._released = asyncio.Event()
                await self._released.wait()
        self._end_stream(None, None)

    def _stream_in_thread(self, answer: Answer) -> None:
        current_call.set(self.log)
        threads = self._front.threads
        pieces: Iterator[Any] = answer.body
        room = self._room = threading.Semaphore(_PIECES_AHEAD)
        threads.post(self._begin_stream, answer, None)
        try:
            for piece in pieces:
                data = chunk_bytes(piece)
                room.acquire()
                if self._closed:
                    break
                threads.post(self._write, data, None)
            _close(pieces)
        except BaseException as error:
            threads.post(self._failed, error, None)
        else:
            threads.post(self._end_stream, None, None)

    def _begin_stream(self, answer: Answer, _: None) -> None:
        if not self._closed:
            self._exchange.start(answer.status, answer.block, None)
            self._exchange.flush()

    def _write(self, data: bytes, _: None) -> None:
        if not self._closed:
            self._exchange.write(data)
            self._exchange.flush()
        if self._room is not None:
            if self._held:
                self._owed += 1
            else:
                self._room.release()

    def _end_stream(self, _: None, __: None) -> None:
        if not self._closed:
            exchange = self._exchange
            exchange.finish()
            self._front.count(exchange, exchange.status, self.begun)
        self._finish()

    # Refusals

    def refuse(self, status: int, block: bytes, reason: str) -> None:
        self._exchange.respond(status, block, f"{reason}".encode())
        self._front.count(self._exchange, status, self.begun)
        self._exchange.owner = IDLE
        self._body.close()


def _close(pieces: Any) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()


def _call_id(exchange: Exchange) -> str:
    for name, value in exchange.fields:
        if len(name) == 9 and name.lower() == b"x-call-id":
            return value.decode("latin-1")
    return "-"


FAILED_BLOCK = b"Content-Type: text/plain; charset=utf-8\r\nX-Stoker-Error: function; exception\r\n"
TIMEOUT_BLOCK = b"Content-Type: text/plain; charset=utf-8\r\nX-Stoker-Error: function; timeout\r\n"
