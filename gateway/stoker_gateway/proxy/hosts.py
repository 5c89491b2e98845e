"""Public hosts: which function answers for a Host header and a path.

Paths are compared as they came, by whole segments, the longest first: `%2f` is no slash, `//` an empty segment. Dot
segments are refused, since what stands behind them depends on who resolves them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from stoker_gateway.routes import Endpoint

if TYPE_CHECKING:
    from stoker_gateway.proxy.entry import Entry

_MAX_SPELLINGS: Final = 4096
_PORT = re.compile(rb":[0-9]{0,5}\Z")
_DOT = rb"(?:\.|%2[eE])"
_DOT_SEGMENT = re.compile(rb"/%b{1,2}(?=/|\Z)" % _DOT)


class Mount(NamedTuple):
    """A function at a place. `methods` is empty for all."""

    entry: Entry
    methods: frozenset[bytes]
    strips: bool


class Host:
    """One public host. Without mounts it is a host under the domain that nobody has."""

    __slots__ = ("_depth", "_mounts", "name")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self._mounts: dict[bytes, Mount] = {}
        self._depth = 0

    def __repr__(self) -> str:
        return f"<Host {self.name.decode()} {len(self._mounts)} mounts>"

    @property
    def is_empty(self) -> bool:
        return not self._mounts

    def find(self, path: bytes) -> tuple[Mount, bytes] | None:
        """Who answers for a path (without its query), and what is left of it behind the mount."""
        segments = path.split(b"/", self._depth + 1)
        for number in range(min(len(segments), self._depth + 1), 0, -1):
            place = b"/".join(segments[:number])
            mount = self._mounts.get(place)
            if mount is not None:
                return mount, path[len(place) :]
        return None

    def put(self, endpoint: Endpoint, entry: Entry) -> None:
        methods = frozenset(method.encode() for method in endpoint.methods)
        self._mounts[endpoint.path.encode()] = Mount(entry, methods, endpoint.strips)
        self._measure()

    def remove(self, endpoint: Endpoint, entry: Entry) -> None:
        """Unless another function has the place by now."""
        path = endpoint.path.encode()
        mount = self._mounts.get(path)
        if mount is not None and mount.entry is entry:
            del self._mounts[path]
            self._measure()

    def _measure(self) -> None:
        self._depth = max((path.count(b"/") for path in self._mounts), default=0)


class Hosts:
    """All public hosts. `domain` is empty where owners have none; `own` are the gateway's, which are never public."""

    def __init__(self, domain: str = "", own: tuple[str, ...] = ()) -> None:
        self._suffix = f".{domain}".encode() if domain else b""
        self._own = frozenset(name.encode() for name in own)
        self._hosts: dict[bytes, Host] = {}
        self._spelled: dict[bytes, Host | None] = {}
        self.in_use = bool(domain)

    def find(self, header: bytes) -> Host | None:
        """The public host that a Host header names; None for the gateway itself. Remembers how hosts are spelled."""
        try:
            return self._spelled[header]
        except KeyError:
            pass
        if len(self._spelled) >= _MAX_SPELLINGS:
            self._spelled.clear()
        host = self._spelled[header] = self._look_up(plain_host(header))
        return host

    def _look_up(self, name: bytes) -> Host | None:
        if name in self._own:
            return None
        host = self._hosts.get(name) or self._hosts.get(b"*." + name.partition(b".")[2])
        if host is None and self._suffix and name.endswith(self._suffix):
            return Host(name)
        return host

    def put(self, endpoint: Endpoint, entry: Entry) -> None:
        name = endpoint.host.encode()
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Host(name)
            self._hosts_changed()
        host.put(endpoint, entry)

    def remove(self, endpoint: Endpoint, entry: Entry) -> None:
        name = endpoint.host.encode()
        host = self._hosts.get(name)
        if host is None:
            return
        host.remove(endpoint, entry)
        if host.is_empty:
            del self._hosts[name]
            self._hosts_changed()

    def _hosts_changed(self) -> None:
        self._spelled.clear()
        self.in_use = bool(self._suffix or self._hosts)


def plain_host(header: bytes) -> bytes:
    """The name in a Host header, in the one spelling that hosts are compared in."""
    return _PORT.sub(b"", header).lower().rstrip(b".")


def has_dot_segment(path: bytes) -> bool:
    """Whether `.` or `..` stands as a segment, also percent-encoded."""
    return (b"/." in path or b"/%2" in path) and _DOT_SEGMENT.search(path) is not None
