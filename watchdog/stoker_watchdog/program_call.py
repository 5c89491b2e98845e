"""What calls that run a process have in common: start it, log its standard error, end it, say what failed."""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

from stoker_watchdog.call import Call
from stoker_watchdog.children import exit_text
from stoker_watchdog.header_variables import header_variables
from stoker_watchdog.lines import OutputLines
from stoker_watchdog.native import MissingProgram
from stoker_watchdog.process import Process
from stoker_watchdog.programs import TooLarge
from stoker_wire.server import Exchange

if TYPE_CHECKING:
    from stoker_watchdog.front import Front
    from stoker_watchdog.program_runner import ProgramRunner

_PLAIN = b"Content-Type: text/plain; charset=utf-8\r\n"


class ProgramCall(Call):
    """Owner of an exchange and of a process. `sent` counts the bytes of the answer's body."""

    __slots__ = ("_errors", "_process", "_runner", "sent")

    def __init__(self, runner: ProgramRunner, front: Front, exchange: Exchange) -> None:
        super().__init__(front, exchange)
        self._runner = runner
        self._process: Process | None = None
        self._errors: OutputLines | None = None
        self.sent = 0

    # What a subclass does

    def output(self, data: bytes) -> None:
        raise NotImplementedError

    def succeeded(self) -> None:
        """The process has ended well: complete the answer, count, and `finish`."""
        raise NotImplementedError

    # The process

    def _start(self, stdin: int) -> bool:
        """Start the program with this descriptor as its input, which is closed here. False when the call has failed."""
        try:
            self._process = self._spawn(stdin)
        except MissingProgram as error:
            self._fail(500, b"function; missing-program", str(error))
        except TooLarge as error:
            self._fail(431, b"client; headers-too-large", str(error))
        except OSError as error:
            name = self._runner.program.name
            self._fail(500, b"function; cannot-start", f"the program {name!r} cannot be started: {error.strerror}")
        else:
            self._runner.running.add(self._process)
            return True
        return False

    def _spawn(self, stdin: int) -> Process:
        runner = self._runner
        opened = [stdin]
        kept = []
        try:
            out, out_end = os.pipe2(os.O_CLOEXEC)
            kept.append(out)
            opened.append(out_end)
            err, err_end = -1, out_end
            if not self._combines:
                err, err_end = os.pipe2(os.O_CLOEXEC)
                kept.append(err)
                opened.append(err_end)
            pid = runner.program.start(stdin, out_end, err_end, self._environment())
            return Process(runner.readiness, pid, out, err, self)
        except BaseException:
            for descriptor in kept:
                os.close(descriptor)
            raise
        finally:
            for descriptor in opened:
                os.close(descriptor)

    @property
    def _combines(self) -> bool:
        options = self._runner.options
        return options.mode == "classic" and options.combine_output

    def _environment(self) -> dict[bytes, bytes]:
        options = self._runner.options
        if not options.cgi_headers:
            return self._runner.program.environment
        variables = header_variables(self._exchange, classic=options.mode == "classic")
        return self._runner.program.environment | variables

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()

    # Owner of the process

    def error_output(self, data: bytes) -> None:
        if self._errors is None:
            self._errors = OutputLines(self._runner.options, self._front.log, self.log.id, "stderr")
        self._errors.feed(data)

    def exited(self, status: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._runner.running.discard(process)
        if self._errors is not None:
            self._errors.close()
        if self._closed or self._exchange.finished:
            self.finish()
        elif status == 0:
            self.succeeded()
        else:
            self._exited_badly(status)

    def _exited_badly(self, status: int) -> None:
        code = b"function; crashed" if os.WIFSIGNALED(status) else b"function; exit-status"
        reason = f"the program {self._runner.program.name!r} failed: {exit_text(status)}"
        self._front.log.lines(self.log.id, [reason])
        self._fail(500, code, f"{reason}; what it printed is in the log under call id {self.log.id}")

    # Answers

    def _fail(self, status: int, code: bytes, reason: str) -> None:
        """The call has failed: say so, or break the answer off where it has begun, so that it is seen."""
        exchange = self._exchange
        if exchange.started:
            exchange.abort()
        else:
            self.respond_failure(status, code, f"{reason}\n".encode())
        self.count(status)
        self.finish()

    def respond_failure(self, status: int, code: bytes, text: bytes) -> None:
        self.sent = len(text)
        self._exchange.respond(status, b"%bX-Stoker-Error: %b\r\n" % (_PLAIN, code), text)

    def count(self, status: int) -> None:
        self._front.count(self._exchange, status, self.begun, self.sent)

    @property
    def duration_line(self) -> bytes:
        return b"X-Duration-Seconds: %.6f\r\n" % (monotonic() - self.begun)
