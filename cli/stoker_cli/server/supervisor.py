"""Starts processes in order, keeps each alive, and stops them in the opposite order.

A process that ends unasked is started again, with a growing pause when it keeps ending; the others go on. Stop is TERM,
wait, KILL.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stoker_sdk.errors import StokerError
from stoker_sdk.processes import PARENT_IS_INIT

START_SECONDS = 60.0
_STABLE_SECONDS = 30.0
_MAX_PAUSE = 10.0


@dataclass
class Child:
    """A process that must run. `command` gets the descriptor on which the process writes a line when it answers.

    A foreign program knows nothing of that: `answers` is asked again and again then, until it says yes.
    """

    name: str
    command: Callable[[int], list[str]]
    environment: Mapping[str, str]
    descriptors: tuple[int, ...] = ()
    stop_seconds: float = 10.0
    answers: Callable[[], bool] | None = None
    wanted_by: socket.socket | None = None
    """A listening socket: the process is started when somebody connects there, and may end with 0 when it is idle."""
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started: float = 0.0
    retry_at: float = 0.0
    resting: bool = False
    ready: int = field(default=-1, repr=False)


class Supervisor:
    """Owns the children. SIGTERM and SIGINT end `watch`."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.stopping = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, *_: object) -> None:
        self.stopping = True
        os.write(self._wake_writer, b"!")

    def start(self, child: Child) -> str:
        """Start a process and wait until it answers. Returns the line that it wrote; raises `StokerError`."""
        self._children.append(child)
        self._spawn(child)
        line = self._wait_for_line(child) if child.answers is None else self._wait_until(child, child.answers)
        if not line and not self.stopping:
            raise StokerError(f"{child.name} did not start; what it printed above says why")
        return line

    def start_when_wanted(self, child: Child, *, now: bool = False) -> None:
        """Look after a child with `wanted_by`. Nobody waits for its start, also when it is to start `now`."""
        child.resting = not now
        self._children.append(child)

    def _spawn(self, child: Child) -> None:
        child.ready, writer = os.pipe2(os.O_CLOEXEC)
        try:
            child.process = subprocess.Popen(
                child.command(writer),
                stdin=subprocess.DEVNULL,
                pass_fds=(*child.descriptors, writer),
                env=dict(child.environment) | ({PARENT_IS_INIT: "1"} if os.getpid() == 1 else {}),
                start_new_session=True,  # Ctrl-C is for us alone; the children are stopped in order
            )
        finally:
            os.close(writer)
        child.started = time.monotonic()

    def _wait_for_line(self, child: Child) -> str:
        deadline = time.monotonic() + START_SECONDS
        line = b""
        while not line.endswith(b"\n") and (left := deadline - time.monotonic()) > 0 and not self.stopping:
            readable, _, _ = select.select([child.ready, self._wake_reader], [], [], left)
            if child.ready in readable:
                data = os.read(child.ready, 4096)
                if not data:
                    break
                line += data
        os.close(child.ready)
        child.ready = -1
        return line.decode().strip()

    def _wait_until(self, child: Child, answers: Callable[[], bool]) -> str:
        os.close(child.ready)
        child.ready = -1
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and not self.stopping and child.process is not None:
            if answers():
                return "ready"
            if child.process.poll() is not None:
                break
            time.sleep(0.02)
        return ""

    def watch(self) -> None:
        """Keep the children running until asked to stop."""
        while not self.stopping:
            pidfds = {os.pidfd_open(c.process.pid): c for c in self._children if c.process is not None}
            wanted = {c.wanted_by.fileno(): c for c in self._children if c.resting and c.wanted_by is not None}
            try:
                readable, _, _ = select.select([*pidfds, *wanted, self._wake_reader], [], [], self._pause())
            finally:
                for descriptor in pidfds:
                    os.close(descriptor)
            for descriptor in readable:
                if descriptor in pidfds:
                    self._ended(pidfds[descriptor])
                elif descriptor in wanted:
                    wanted[descriptor].resting = False
            self._restart_due()

    def _pause(self) -> float | None:
        due = [child for child in self._children if child.process is None and not child.resting]
        waits = [child.retry_at - time.monotonic() for child in due]
        return max(0.0, min(waits)) if waits else None

    def _ended(self, child: Child) -> None:
        if child.process is None:
            return
        code = child.process.wait()
        if code == 0 and child.wanted_by is not None:
            child.process, child.resting, child.failures, child.retry_at = None, True, 0, 0.0
            return
        if time.monotonic() - child.started > _STABLE_SECONDS:
            child.failures = 0
        child.failures += 1
        pause = 0.0 if child.failures == 1 else min(_MAX_PAUSE, 0.1 * 2.0**child.failures)
        child.retry_at = time.monotonic() + pause
        child.process = None
        print(f"stoker: {child.name} ended ({_how(code)}); starting it again", file=sys.stderr, flush=True)

    def _restart_due(self) -> None:
        for child in self._children:
            due = child.process is None and not child.resting and child.retry_at <= time.monotonic()
            if due and not self.stopping:
                self._spawn(child)
                # Nobody waits for its line: the others go on meanwhile, and a failure shows as its end.
                os.close(child.ready)
                child.ready = -1

    def stop(self) -> None:
        """End every child, the last started first; children started together (same name up to the digit) at once."""
        while self._children:
            kind = self._children[-1].name.rstrip("0123456789")
            group = [child for child in self._children if child.name.rstrip("0123456789") == kind]
            for child in group:
                if child.process is not None:
                    child.process.terminate()
            for child in group:
                self._end(child)
                self._children.remove(child)

    def _end(self, child: Child) -> None:
        if child.process is None:
            return
        try:
            child.process.wait(child.stop_seconds)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
