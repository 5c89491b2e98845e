"""What a handler is given: the event (its request) and the context (where and as what it runs)."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl

from stoker_watchdog.hooks import takes_context
from stoker_watchdog.once import Once, check_factory

SPOOL_SIZE = 1024 * 1024
"""Bodies beyond this many bytes wait in an unnamed temporary file, so that uploads cost no memory."""


CONTAINER_SECRETS = "/var/openfaas/secrets"
"""Where secrets are in a container (contract section 9); on one machine each function has a folder of its own."""


class Body:
    """A request's body as it comes in: in memory while small, in a temporary file beyond `SPOOL_SIZE`."""

    __slots__ = ("_file", "_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is not None:
            self._file.write(data)
        else:
            self._parts.append(data)
            if self.size > SPOOL_SIZE:
                self._spool()

    def _spool(self) -> None:
        import tempfile  # it brings much along that most replicas never need

        self._file = tempfile.TemporaryFile(prefix="stoker-body-")  # noqa: SIM115 (lives as long as the body)
        self._file.writelines(self._parts)
        self._parts = []

    def whole(self) -> bytes:
        if self._file is not None:
            self._file.seek(0)
            return self._file.read()
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    def file(self) -> IO[bytes]:
        if self._file is not None:
            self._file.seek(0)
            return self._file
        return io.BytesIO(self.whole())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Headers(Mapping[str, str]):
    """Request headers; names in any case. A name that came several times gives its first value; `getlist` gives all."""

    __slots__ = ("_fields", "_index")

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._fields = fields
        self._index: dict[str, list[str]] | None = None

    def _values(self) -> dict[str, list[str]]:
        if self._index is None:
            self._index = {}
            for name, value in self._fields:
                self._index.setdefault(name.decode("latin-1").title(), []).append(value.decode("latin-1"))
        return self._index

    def __getitem__(self, name: str) -> str:
        return self._values()[name.title()][0]

    def getlist(self, name: str) -> list[str]:
        return self._values().get(name.title(), [])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __repr__(self) -> str:
        return f"Headers({dict(self)})"


class Query(dict[str, str]):
    """The query's parameters, decoded; the first value of each name. `getlist` gives all."""

    def __init__(self, query: str) -> None:
        self._pairs = parse_qsl(query, keep_blank_values=True)
        super().__init__(reversed(self._pairs))

    def getlist(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name]


class Event:
    """One request. `path` is as it was sent, not decoded; `raw_query` likewise."""

    __slots__ = ("_body", "_fields", "_headers", "_query", "_text", "method", "path", "raw_query")

    def __init__(self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], body: Body) -> None:
        self.method = method.decode("ascii")
        path, _, query = target.partition(b"?")
        self.path = path.decode("latin-1")
        self.raw_query = query.decode("latin-1")
        self._fields = fields
        self._body = body
        self._headers: Headers | None = None
        self._query: Query | None = None

    @property
    def body(self) -> bytes:
        """The whole body in memory; see `file` for large ones."""
        return self._body.whole()

    @property
    def text(self) -> str:
        """The body as text (UTF-8; bytes that are not become U+FFFD)."""
        return self._body.whole().decode("utf-8", "replace")

    @property
    def file(self) -> IO[bytes]:
        """The body as a binary file to read piece by piece."""
        return self._body.file()

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers(self._fields)
        return self._headers

    @property
    def query(self) -> Query:
        if self._query is None:
            self._query = Query(self.raw_query)
        return self._query

    def __repr__(self) -> str:
        return f"<Event {self.method} {self.path} {self._body.size} bytes>"


class ReplicaFacts:
    """What the contexts of all calls of a replica share."""

    __slots__ = ("connections", "function", "hostname", "namespace", "once", "secrets", "state")

    def __init__(self, function: str, namespace: str, secrets: str = "", connections: int = 0) -> None:
        self.function = function
        self.namespace = namespace
        self.hostname = os.environ.get("HOSTNAME") or socket.gethostname()
        self.secrets = secrets or os.environ.get("STOKER_SECRETS") or CONTAINER_SECRETS
        self.connections = connections
        self.state: Any = None
        self.once = Once()


class Context:
    """Where a call runs. Hooks get one too, with an empty `call_id`."""

    __slots__ = ("_replica", "call_id")

    def __init__(self, replica: ReplicaFacts, call_id: str = "") -> None:
        self._replica = replica
        self.call_id = call_id

    @property
    def function(self) -> str:
        return self._replica.function

    @property
    def namespace(self) -> str:
        return self._replica.namespace

    @property
    def hostname(self) -> str:
        return self._replica.hostname

    @property
    def connections(self) -> int:
        """How many connections this replica may open: its share of `connections` in stack.yml; 0: not set."""
        return self._replica.connections

    @property
    def state(self) -> Any:
        """What `init()` returned, the same for all calls of the replica; what a call puts here, the next ones find."""
        return self._replica.state

    @state.setter
    def state(self, value: Any) -> None:
        self._replica.state = value

    def once(self, factory: Callable[..., Any]) -> Any:
        """What `factory` returned when it was run first; ten calls at once run it once. It takes nothing, or the
        context. Of an `async def` factory it is to be awaited: `pool = await context.once(connect)`.

        A failure is not remembered. Raises what the factory raises, and `TypeError` for a lambda or inner function.
        """
        check_factory(factory)
        arguments = (Context(self._replica),) if takes_context(factory) else ()
        return self._replica.once.get(factory, arguments)

    def made(self, factory: Callable[..., Any]) -> Any:
        """What `once(factory)` has made, or None if it has made nothing yet: for `health` and `close`."""
        return self._replica.once.made(factory)

    def secret(self, name: str) -> str:
        """The value of a secret that the function lists, without the newline at its end. Raises `KeyError`."""
        try:
            return (Path(self._replica.secrets) / Path(name).name).read_text().removesuffix("\n")
        except OSError:
            raise KeyError(f"the function has no secret {name!r}: list it under `secrets` in stack.yml") from None
        except UnicodeDecodeError:
            raise ValueError(f"the secret {name!r} is not text: read its file in {self._replica.secrets}") from None
