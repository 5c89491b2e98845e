"""Modes `serializing` and `classic`: the whole body is the process's input, its whole output the answer.

The input is a pipe that holds it all, or a file, so nothing has to be fed to the process. `classic` has the rules of
the classic watchdog (contract section 8.7).
"""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

from stoker_watchdog.event import SPOOL_SIZE, Body
from stoker_watchdog.program_call import ProgramCall
from stoker_watchdog.pump import Pump
from stoker_wire.server import Exchange

if TYPE_CHECKING:
    from stoker_watchdog.front import Front
    from stoker_watchdog.program_runner import ProgramRunner

_CLASSIC_METHODS = frozenset((b"POST", b"PUT", b"PATCH", b"DELETE", b"GET"))
_METHOD_BLOCK = (
    b"Content-Type: text/plain; charset=utf-8\r\nAllow: POST, PUT, PATCH, DELETE, GET\r\n"
    b"X-Stoker-Error: client; method-not-allowed\r\n"
)
_MAX_DEBUG = 4096
_SMALLEST_PIPE = 4096


class WholeCall(ProgramCall):
    """One call of a program that reads everything and then answers."""

    __slots__ = ("_body", "_output", "_pump")

    def __init__(self, runner: ProgramRunner, front: Front, exchange: Exchange) -> None:
        super().__init__(runner, front, exchange)
        self._body = Body()
        self._output = Body()
        self._pump: Pump | None = None

    @property
    def timeout_status(self) -> int:
        return 408 if self._is_classic else 500

    @property
    def _is_classic(self) -> bool:
        return self._runner.options.mode == "classic"

    def begin(self) -> None:
        if self._is_classic and self._exchange.method not in _CLASSIC_METHODS:
            reason = f"{self._exchange.method.decode()} is not allowed: the classic watchdog takes {_METHODS}\n"
            self._front.unbound(self)
            self.refuse(405, _METHOD_BLOCK, reason)
        elif self._exchange.length:
            self._exchange.accept_body()
        else:
            self._front.admit(self)

    def body(self, data: bytes) -> None:
        self._body.add(data)

    def body_end(self) -> None:
        self._front.admit(self)

    def run(self) -> None:
        self.runs = True
        options = self._runner.options
        if options.mode == "classic" and (options.write_debug or options.debug_headers):
            self._debug("request", self._body.whole())
        try:
            stdin = self._input()
        except OSError as error:
            self._fail(500, b"function; cannot-start", f"the request's body cannot be kept: {error.strerror}")
            return
        self._start(stdin)

    def _input(self) -> int:
        if self._runner.options.marshal_request:
            return _input_of(_marshalled(self._exchange, self._body.whole()))
        if not self._body.size:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if self._body.size > SPOOL_SIZE:
            return os.dup(self._body.file().fileno())
        return _input_of(self._body.whole())

    # Owner of the process

    def output(self, data: bytes) -> None:
        self._output.add(data)

    def succeeded(self) -> None:
        exchange, output = self._exchange, self._output
        self.sent = output.size
        block = self._type_line() + self.duration_line
        if self._is_classic and self._runner.options.write_debug:
            self._debug("answer", output.whole())
        if output.size <= SPOOL_SIZE or exchange.method == b"HEAD":
            exchange.start(200, block, output.size)
            exchange.write(b"" if exchange.method == b"HEAD" else output.whole())
            self._sent(True)
            return
        exchange.start(200, block, output.size)
        self._pump = Pump(self._front.loop, output.file(), output.size, self._write, self._sent)
        self._pump.run()

    def _type_line(self) -> bytes:
        content_type = self._runner.options.content_type.encode("latin-1", "replace")
        if not content_type:
            content_type = next((v for n, v in self._exchange.fields if n.lower() == b"content-type"), b"")
        return b"Content-Type: %b\r\n" % content_type if content_type else b""

    def _write(self, data: bytes) -> None:
        self._exchange.write(data)
        self._exchange.flush()

    def _sent(self, whole: bool) -> None:
        if whole:
            self._exchange.finish()
        else:
            self._exchange.abort()
        self.count(200)
        self.finish()

    def hold(self) -> None:
        if self._pump is not None:
            self._pump.hold()

    def release(self) -> None:
        if self._pump is not None:
            self._pump.release()

    # Ends

    def stop(self) -> None:
        super().stop()
        if self._pump is not None:
            self._pump.stop()
            self.finish()

    def respond_timeout(self) -> None:
        text = b"Killed process.\n" if self._is_classic else self._timeout_text()
        self.respond_failure(self.timeout_status, b"function; timeout", text)

    def _timeout_text(self) -> bytes:
        limit = f"{self._front.settings.timeout:g} s"
        return f"the program took longer than exec_timeout ({limit}) and was killed\n".encode()

    def respond_failure(self, status: int, code: bytes, text: bytes) -> None:
        block = b"Content-Type: text/plain; charset=utf-8\r\nX-Stoker-Error: %b\r\n" % code
        if self._is_classic:
            text += self._output.whole()
        else:
            block += self.duration_line
        self.sent = len(text)
        self._exchange.respond(status, block, text)

    def release_input(self) -> None:
        self._body.close()
        self._output.close()

    def _debug(self, what: str, data: bytes) -> None:
        exchange = self._exchange
        lines = []
        if self._runner.options.debug_headers and what == "request":
            lines += [f"{what} header {name.decode('latin-1')}: {_shown(value)}" for name, value in exchange.fields]
        if self._runner.options.write_debug:
            lines.append(f"{what} of {len(data)} bytes: {_shown(data)}")
        self._front.log.lines(self.log.id, lines)


_METHODS = "POST, PUT, PATCH, DELETE and GET"


def _shown(data: bytes) -> str:
    return data[:_MAX_DEBUG].decode("utf-8", "backslashreplace").replace("\n", "\\n")


def _input_of(data: bytes) -> int:
    """A descriptor to read this from: a pipe that holds it for certain, or else a file."""
    if len(data) > _SMALLEST_PIPE:
        return _file_of(data)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.write(writer, data)
    os.close(writer)
    return reader


def _file_of(data: bytes) -> int:
    """A file in memory with this content, to be read from its beginning."""
    descriptor = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:] if written else data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _marshalled(exchange: Exchange, body: bytes) -> bytes:
    """The request as JSON, for `marshal_request`; names of headers as Go writes them, with all of their values."""
    header: dict[str, list[str]] = {}
    for name, value in exchange.fields:
        canonical = "-".join(part.capitalize() for part in name.decode("latin-1").split("-"))
        header.setdefault(canonical, []).append(value.decode("latin-1"))
    return json.dumps({"header": header, "body": {"raw": base64.b64encode(body).decode()}}).encode()
