"""A call of a Python handler: gather its body, run the handler in the way of its shape, answer, stream, count.

A plain function runs in a thread, so it never blocks health, readiness or other calls; an `async def` runs as a task.
Generators are read one piece at a time, and only as fast as the client takes them.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from stoker_watchdog.call import Call
from stoker_watchdog.event import Body, Context, Event
from stoker_watchdog.handler import Answer, HandlerError, answer_from, chunk_bytes
from stoker_watchdog.logs import current_call
from stoker_wire.server import Exchange

if TYPE_CHECKING:
    from stoker_watchdog.front import Front
    from stoker_watchdog.python_runner import PythonRunner

_PIECES_AHEAD = 4


class HandlerCall(Call):
    """One call of the handler of `runner`."""

    __slots__ = ("_body", "_held", "_owed", "_released", "_room", "_runner", "_task")

    def __init__(self, runner: PythonRunner, front: Front, exchange: Exchange) -> None:
        super().__init__(front, exchange)
        self._runner = runner
        self._body = Body()
        self._task: asyncio.Task[None] | None = None
        self._room: threading.Semaphore | None = None
        self._released: asyncio.Event | None = None
        self._held = False
        self._owed = 0

    def begin(self) -> None:
        if self._exchange.length:
            self._exchange.accept_body()
        else:
            self._front.admit(self)

    # Owner of the exchange

    def body(self, data: bytes) -> None:
        self._body.add(data)

    def body_end(self) -> None:
        self._front.admit(self)

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
        self.runs = True
        handler = self._runner.handler
        if handler.is_async:
            self._task = self._front.loop.create_task(self._run_async(), name=f"call {self.log.id}")
        else:
            self._runner.threads.run(self._run_in_thread)

    def _arguments(self) -> tuple[Any, ...]:
        exchange = self._exchange
        event = Event(exchange.method, exchange.target, exchange.fields, self._body)
        if self._runner.handler.takes_event:
            return event, Context(self._runner.facts, self.log.id)
        return (event.text,)

    def _run_in_thread(self) -> None:
        if self._closed:
            self._runner.threads.post(self._ended, None, None)
            return
        token = current_call.set(self.log)
        try:
            result = self._runner.handler.call(*self._arguments())
            answer = answer_from(result)
        except BaseException as error:  # whatever a handler raises, SystemExit included, is its failure
            self._runner.threads.post(self._failed, error, None)
        else:
            if isinstance(answer.body, bytes):
                self._runner.threads.post(self._answer, answer, None)
            else:
                self._stream_from_thread(answer)
        finally:
            self._front.log.end_call(self.log)
            current_call.reset(token)

    async def _run_async(self) -> None:
        current_call.set(self.log)
        try:
            result = self._runner.handler.call(*self._arguments())
            if inspect.isawaitable(result):
                result = await result
            answer = answer_from(result)
            if isinstance(answer.body, bytes):
                self._answer(answer, None)
            elif hasattr(answer.body, "__aiter__"):
                await self._stream_async(answer, answer.body)
            else:
                self._runner.threads.run(lambda: self._stream_in_thread(answer))
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
        self.finish()

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
        self.finish()

    def _respond_failure(self, error: BaseException) -> None:
        if isinstance(error, MemoryError):
            self._exchange.respond(
                500, MEMORY_BLOCK, b"the handler ran out of memory: raise limits.memory, or use less\n"
            )
            return
        what = str(error) if isinstance(error, HandlerError) else f"the handler raised {type(error).__name__}"
        body = f"{what}; the traceback is in the log under call id {self.log.id}\n".encode()
        self._exchange.respond(500, FAILED_BLOCK, body)

    def stop(self) -> None:
        """A task is cancelled, a generator is closed at its next piece; a thread goes on without anybody to hear it."""
        if self._task is not None:
            self._task.cancel()
        if self._room is not None:
            self._room.release()

    def _ended(self, _: None, __: None) -> None:
        self.finish()

    def release_input(self) -> None:
        self._task = None
        self._body.close()

    # Streaming

    def _stream_from_thread(self, answer: Answer) -> None:
        if hasattr(answer.body, "__aiter__"):
            self._runner.threads.post(self._stream_as_task, answer, None)
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
        threads = self._runner.threads
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
        self.finish()


def _close(pieces: Any) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()


MEMORY_BLOCK = b"Content-Type: text/plain; charset=utf-8\r\nX-Stoker-Error: function; out-of-memory\r\n"
FAILED_BLOCK = b"Content-Type: text/plain; charset=utf-8\r\nX-Stoker-Error: function; exception\r\n"
