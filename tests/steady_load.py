"""Constant load on a function while things around it are replaced: short calls, long ones, and calls for later.

with SteadyLoad(address, "steady.fn") as load:
    load.enter("a new tag")
    ...
assert load.lost == []

The function answers with its body: at once, and on the path /long after `LONG_SECONDS`.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from types import TracebackType

LONG_SECONDS = 20.0
HANDLER = f"""
import asyncio

VERSION = {{!r}}

async def handle(event, context):
    if event.path == "/version":
        return VERSION
    if event.path == "/long":
        await asyncio.sleep({LONG_SECONDS})
    return event.body
"""
_LONG_CALLERS, _SHORT_CALLERS, _LASTING_CALLERS = 4, 2, 2
_PAUSE, _LATER_PAUSE = 0.02, 0.5


class SteadyLoad:
    """`lost` says which calls went wrong, in which phase and how; `done` counts the others by their kind."""

    def __init__(self, address: str, function: str) -> None:
        self._address = address
        self._function = function
        self._phase = "the beginning"
        self._stop = threading.Event()
        self.lost: list[str] = []
        self.done: Counter[str] = Counter()
        self.later: list[str] = []
        """The ids of the calls for later that were taken."""
        self._callers = [
            *(threading.Thread(target=self._long, args=(number,)) for number in range(_LONG_CALLERS)),
            *(threading.Thread(target=self._short) for _ in range(_SHORT_CALLERS)),
            *(threading.Thread(target=self._lasting) for _ in range(_LASTING_CALLERS)),
            threading.Thread(target=self._later),
        ]

    def __enter__(self) -> SteadyLoad:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Calls that run are waited for."""
        self._stop.set()
        for caller in self._callers:
            caller.join()

    def enter(self, phase: str) -> None:
        """What happens from now on."""
        self._phase = phase

    def _long(self, number: int) -> None:
        self._stop.wait(number * LONG_SECONDS / _LONG_CALLERS)  # so that at any time one is near its end
        while not self._stop.is_set():
            self._call("long", self._open(), "/long")

    def _short(self) -> None:
        while not self._stop.wait(_PAUSE):
            self._call("short", self._open(), "")

    def _lasting(self) -> None:
        """Over one connection, for as long as the other side keeps it."""
        connection = self._open()
        while not self._stop.wait(_PAUSE):
            self._call("short, kept-alive", connection, "", ends=False)
        connection.close()

    def _later(self) -> None:
        while not self._stop.wait(_LATER_PAUSE):
            connection = self._open()
            try:
                connection.request("POST", f"/async-function/{self._function}", b"later")
                answer = connection.getresponse()
                if answer.status == 202:
                    self.later.append(answer.getheader("X-Call-Id") or "")
                else:
                    self._lose("for later", f"{answer.status} {answer.read()!r}")
            except (OSError, http.client.HTTPException) as error:
                self._lose("for later", repr(error))
            finally:
                connection.close()

    def _call(self, kind: str, connection: http.client.HTTPConnection, path: str, *, ends: bool = True) -> None:
        begun, phase = time.monotonic(), self._phase
        try:
            connection.request("POST", f"/function/{self._function}{path}", b"word")
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
            seconds = time.monotonic() - begun
            if (status, text) != (200, b"word") or (path == "/long" and seconds < LONG_SECONDS):
                self._lose(kind, f"{status} {text[:200]!r} after {seconds:.1f} s, begun in {phase}")
            else:
                self.done[kind] += 1
        except (OSError, http.client.HTTPException) as error:
            self._lose(kind, f"{error!r} after {time.monotonic() - begun:.1f} s, begun in {phase}")
            connection.close()
        finally:
            if ends:
                connection.close()

    def _open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, 8080, timeout=60)

    def _lose(self, kind: str, how: str) -> None:
        self.lost.append(f"{self._phase}: {kind}: {how}")
