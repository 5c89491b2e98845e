"""The lines of `buildctl build --progress=rawjson`: one JSON object a line, on standard error.

An object tells what is new: `vertexes` (the steps, by `digest`, with `name`, `started`, `completed`, `cached`, `error`)
and `logs` (of a `vertex`; `data` is base64, and its pieces end anywhere, also within a character). The last line of a
build that fails is text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Final

import msgspec

from stoker_builder.images.steps import Steps
from stoker_sdk.errors import StokerError

_LONGEST: Final = 65536
_CANCELLED: Final = "context canceled"
"""How a step ends because another one has failed."""


class _Vertex(msgspec.Struct):
    digest: str
    name: str = ""
    started: str | None = None
    completed: str | None = None
    cached: bool = False
    error: str = ""


class _Log(msgspec.Struct):
    vertex: str
    data: str = ""


class _Status(msgspec.Struct):
    vertexes: list[_Vertex] | None = None
    logs: list[_Log] | None = None


class RawLog:
    """Takes lines as they come."""

    def __init__(self) -> None:
        self._steps = Steps()
        self._cached: set[str] = set()
        self._rests: dict[str, bytes] = {}

    def lines(self, line: str) -> list[str]:
        """What a person should see of it, if anything."""
        if not line.startswith("{"):
            return [line] if line.strip() and not self._steps.have_failed else []
        try:
            status = msgspec.json.decode(line, type=_Status)
        except msgspec.DecodeError:
            return [line]
        return list(self._shown(status))

    def failure(self) -> StokerError | None:
        """Why the build failed, if one of its steps did."""
        return self._steps.failure()

    def _shown(self, status: _Status) -> Iterator[str]:
        for vertex in status.vertexes or ():
            if vertex.started or vertex.cached or vertex.error:
                yield from self._steps.begin(vertex.digest, vertex.name)
        for log in status.logs or ():
            yield from self._printed(log)
        for vertex in status.vertexes or ():
            yield from self._standing(vertex)

    def _standing(self, vertex: _Vertex) -> Iterator[str]:
        if vertex.cached and vertex.digest not in self._cached:
            self._cached.add(vertex.digest)
            yield from self._steps.is_cached(vertex.digest)
        if not (vertex.completed or vertex.error):
            return
        if rest := self._rests.pop(vertex.digest, b""):
            yield from self._steps.print(vertex.digest, _text(rest))
        if vertex.error and not vertex.error.endswith(_CANCELLED):
            self._steps.fail(vertex.digest, vertex.error)

    def _printed(self, log: _Log) -> Iterator[str]:
        try:
            data = base64.b64decode(log.data)
        except binascii.Error:
            return
        *whole, rest = (self._rests.pop(log.vertex, b"") + data).split(b"\n")
        if len(rest) > _LONGEST:
            whole, rest = [*whole, rest], b""
        if rest:
            self._rests[log.vertex] = rest
        for line in whole:
            yield from self._steps.print(log.vertex, _text(line))


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
