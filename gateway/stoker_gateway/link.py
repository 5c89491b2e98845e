"""What control and a proxy (or worker) say to each other over the local socket: one JSON object a line, each way.

Control numbers every change of the table and a proxy acknowledges the number, so that a replica is asked to drain only
when no proxy will choose it any more.
"""

from __future__ import annotations

from typing import Final

import msgspec

from stoker_gateway.counters import FunctionCounters
from stoker_gateway.queue.counters import CallCounters
from stoker_gateway.routes import Route

MAX_LINE: Final = 64 * 1024 * 1024
"""The whole table travels as one line: ten thousand functions take about 3 MB."""


class Table(msgspec.Struct, frozen=True, tag=True):
    """The whole route table; replaces whatever the proxy had."""

    version: int
    routes: list[Route]


class Change(msgspec.Struct, frozen=True, tag=True):
    """One function's route is now this; None: the function is gone."""

    version: int
    key: str
    route: Route | None


class Count(msgspec.Struct, frozen=True, tag=True):
    """Send your counters."""

    question: int


class Limits(msgspec.Struct, frozen=True, tag=True):
    """This proxy's shares of the owners' rates, in calls a second; 0: no limit. `rest` is for owners not named."""

    rest: float
    owners: dict[str, float]


class Ack(msgspec.Struct, frozen=True, tag=True):
    """The table is at this version here."""

    version: int


class Wake(msgspec.Struct, frozen=True, tag=True):
    """Calls for this function wait, and no replica is ready."""

    key: str


class Counted(msgspec.Struct, frozen=True, tag=True):
    """The counters since this proxy or worker began. `question` is 0 when nobody asked.

    `reconnects`: how often the connection to the broker came back, by the metric's name for who has it.
    """

    question: int
    functions: list[FunctionCounters]
    calls: list[CallCounters] = []
    reconnects: dict[str, int] = {}


class Demand(msgspec.Struct, frozen=True, tag=True):
    """How many calls for owners with a limit came to this proxy in the last second. Who sends it gets `Limits`."""

    owners: dict[str, int]


ToProxy = Table | Change | Count | Limits
ToControl = Ack | Wake | Counted | Demand

_encoder = msgspec.json.Encoder()
decode_for_proxy = msgspec.json.Decoder(ToProxy).decode
decode_for_control = msgspec.json.Decoder(ToControl).decode


def encode(message: ToProxy | ToControl) -> bytes:
    """The message as a line."""
    return _encoder.encode(message) + b"\n"
