"""What a mode does for its replica: prepare, make calls, tell its health, end. One implementation for each mode.

| mode | module | a call is |
|---|---|---|
| `python` | `python_runner` | the handler, in this process |
| `http` | `http_runner` | a request to the one program that the replica has started |
| `streaming` | `program_runner`, `streaming_call` | a process: body in, answer out, as they come |
| `serializing`, `classic` | `program_runner`, `whole_call` | a process: whole body in, whole answer out |
| `static` | `static_runner` | a file |

`native` has none: the function's program is its own watchdog and replaces this process (`native.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from stoker_wire.server import Exchange

if TYPE_CHECKING:
    from stoker_watchdog.call import Call
    from stoker_watchdog.front import Front


class Runner(Protocol):
    """Made before the loop runs; everything else happens in it."""

    has_health: bool
    """Whether `health` can ever give a reason; it is not asked otherwise, so that a replica at rest does nothing."""

    async def open(self) -> None:
        """Whatever must be there before the replica is ready. What it raises fails the start, with its text."""

    def watch(self, end: Callable[[str], None]) -> None:
        """Call `end` with the reason, once, when the replica cannot go on: it then ends with a failure."""

    def call(self, front: Front, exchange: Exchange) -> Call:
        """A call for this exchange, which has just begun."""

    async def health(self) -> str:
        """Empty when calls can be served, else the reason why not, in one line. Asked every so often, one question at
        a time; cancelled when it takes too long, and asked again. Raises nothing.
        """

    async def close(self) -> None:
        """The last call has ended: close what is open. Cancelled when the grace period is over."""
