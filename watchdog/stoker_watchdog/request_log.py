"""One line for each call, in the shapes that log parsers of the contract's watchdogs know (section 8.8)."""

from __future__ import annotations

from stoker_watchdog.call import call_id
from stoker_watchdog.lines import clock
from stoker_watchdog.logs import LogStream
from stoker_watchdog.options import Options
from stoker_wire.message import reason_phrase
from stoker_wire.server import Exchange

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class RequestLog:
    """Called by the front at the end of each call. Kubernetes' probes are left out."""

    def __init__(self, options: Options, log: LogStream) -> None:
        self._log = log
        self._with_id = options.log_callid
        self._with_phrase = options.mode != "streaming"

    def __call__(self, exchange: Exchange, status: int, seconds: float, size: int) -> None:
        agent = _field(exchange, b"user-agent")
        if agent.startswith(b"kube-probe"):
            return
        code = str(status)
        streams = exchange.upgrade or any(kind in _field(exchange, b"accept") for kind in _STREAMS)
        if streams:
            amount = f"Bytes: {human_size(size)}"
        else:
            amount = f"ContentLength: {human_size(size)}"
            code += f" {reason_phrase(status).decode()}" if self._with_phrase else ""
        line = f"{clock()} {exchange.method.decode()} {exchange.target.decode('latin-1')} - {code} - {amount}"
        line += f" ({seconds:.4f}s)"
        if self._with_id:
            id = call_id(exchange)
            line += f" [{'none' if id == '-' else id}]"
        self._log.lines(call_id(exchange), [line])


_STREAMS = (b"text/event-stream", b"application/x-ndjson")


def _field(exchange: Exchange, name: bytes) -> bytes:
    return next((value for known, value in exchange.fields if known.lower() == name), b"")


def human_size(size: float) -> str:
    """`39B`, `1.234kB`: four digits, steps of a thousand."""
    step = 0
    while size >= 1000 and step < len(_UNITS) - 1:
        size /= 1000
        step += 1
    return f"{size:.4g}{_UNITS[step]}"
