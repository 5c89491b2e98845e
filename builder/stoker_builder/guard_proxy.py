"""An HTTP proxy (RFC 9110, section 9.3.6; RFC 9112, section 3.2.2) that leads to other machines only.

It resolves a name itself and dials what it has checked, so a name that resolves differently a moment later gains
nothing. One thread for each connection: installers open a few dozen.
"""

from __future__ import annotations

import base64
import encodings.idna  # noqa: F401 - names are looked up under a user id that may not read it any more
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote, urlsplit

from stoker_builder.this_machine import is_this_machine

_MAX_HEAD: Final = 64 * 1024
_CHUNK: Final = 64 * 1024
_DIAL_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 600.0
_MOST: Final = 200
_HOST: Final = re.compile(r"[0-9a-z_.:-]+")
_Handle = Callable[[socket.socket], None]
_OWN_HEADERS: Final = (b"proxy-", b"connection:", b"keep-alive:")


@dataclass(frozen=True)
class Target:
    """Where a connection goes; `host` is a name or an address in lower case."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether it is written as an address of the loopback; other names are not resolved."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Parent:
    """Another proxy by which everything goes but `besides`, which are names of hosts and domains."""

    target: Target
    user: str
    password: str
    besides: tuple[str, ...]

    def takes(self, host: str) -> bool:
        return not any(host == name or host.endswith(f".{name}") for name in self.besides)


@dataclass(frozen=True)
class Way:
    """`named` may be reached wherever it is."""

    named: frozenset[Target]
    parent: Parent | None = None


class Refused(Exception):
    """The target is this machine. The text is for whoever reads the install's output."""


def serve(proxy: socket.socket, forwards: Mapping[Target, socket.socket], way: Way) -> None:
    """Until killed. `forwards` are listeners whose connections go to one target each."""
    for target, listener in forwards.items():
        threading.Thread(target=_accept, args=(listener, lambda client, to=target: _forward(client, to))).start()
    _accept(proxy, lambda client: _answer(client, way))


def _accept(listener: socket.socket, handle: _Handle) -> None:
    places = threading.Semaphore(_MOST)

    def run(client: socket.socket) -> None:
        try:
            with client:
                handle(client)
        except (OSError, ValueError):
            pass  # a connection that broke
        finally:
            places.release()

    while True:
        places.acquire()
        client, _ = listener.accept()
        client.settimeout(_IDLE_SECONDS)
        threading.Thread(target=run, args=(client,), daemon=True).start()


def _forward(client: socket.socket, target: Target) -> None:
    with socket.create_connection((target.host, target.port), _DIAL_SECONDS) as server:
        _pump_both(client, server)


def _answer(client: socket.socket, way: Way) -> None:
    head, rest = _read_head(client)
    method, address, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    tunnel = method == "CONNECT"
    try:
        target, path = _target_of(method, address)
        parent = way.parent if way.parent and target not in way.named and way.parent.takes(target.host) else None
        server = _dial_parent(parent, target) if parent else _dial(target, way.named)
    except Refused as error:
        _refuse(client, "403 Forbidden", str(error))
        return
    except (OSError, ValueError) as error:
        _refuse(client, "502 Bad Gateway", f"{address[:200]} cannot be reached: {error}")
        return
    with server:
        if parent:
            where = str(target) if tunnel else f"http://{target}{path}"
            server.sendall(_one_request(head, method, where, parent))
            if tunnel and not _is_open(server, client):
                return
        elif tunnel:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            server.sendall(_one_request(head, method, path))
        server.sendall(rest)
        _pump_both(client, server)


def _is_open(parent: socket.socket, client: socket.socket) -> bool:
    """Pass on what the parent says of a tunnel. Where it makes none it would take another request: that is the end."""
    head, rest = _read_head(parent)
    client.sendall(head + b"\r\n\r\n" + rest)
    if head.split(b" ", 2)[1].startswith(b"2"):
        return True
    parent.shutdown(socket.SHUT_WR)
    _pump(parent, client)
    return False


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = client.recv(_CHUNK)
        if not chunk or len(data) > _MAX_HEAD:
            raise ValueError("no head of a request")
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    if b"\n" in head.replace(b"\r\n", b""):
        raise ValueError("a line that others may take for two")
    return head, rest


def _target_of(method: str, address: str) -> tuple[Target, str]:
    """Whither, and the path there. Raises `ValueError`."""
    parts = urlsplit(f"//{address}" if method == "CONNECT" else address)
    if not parts.hostname or (method != "CONNECT" and parts.scheme != "http"):
        raise ValueError("a proxy is asked for http://HOST/PATH or CONNECT HOST:PORT")
    if not _HOST.fullmatch(parts.hostname) or not address.isprintable():
        raise ValueError("no name of a host")
    path = parts._replace(scheme="", netloc="").geturl() or "/"
    return Target(parts.hostname, parts.port or 80), path


def _dial(target: Target, named: frozenset[Target]) -> socket.socket:
    last: Exception = OSError("it has no address")
    for family, kind, number, _, where in socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM):
        address = str(where[0])
        is_named = target in named or Target(address, target.port) in named
        if not is_named and is_this_machine(address):
            last = Refused(
                f"{target} is on the platform's machine, which builds of pushes do not reach; "
                f"its operator can allow it: stoker serve --build-reach {target}"
            )
            continue
        server = socket.socket(family, kind, number)
        server.settimeout(_DIAL_SECONDS)
        try:
            server.connect(where)
        except OSError as error:
            server.close()
            last = error
            continue
        server.settimeout(_IDLE_SECONDS)
        return server
    raise last


def _dial_parent(parent: Parent, target: Target) -> socket.socket:
    if _is_named_here(target.host):
        raise Refused(f"{target} is on the platform's machine, which builds of pushes do not reach")
    server = socket.create_connection((parent.target.host, parent.target.port), _DIAL_SECONDS)
    server.settimeout(_IDLE_SECONDS)
    return server


@lru_cache(maxsize=1024)
def _is_named_here(host: str) -> bool:
    """Whether an address of this machine has this name, or may be written so (`127.1`). The parent may know names that
    we do not; to learn that can take long, so each is asked once.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return host == "localhost" or host.endswith(".localhost")
    return any(is_this_machine(str(where[0])) for *_, where in found)


def _one_request(head: bytes, method: str, where: str, parent: Parent | None = None) -> bytes:
    """The same request as the next one takes it, and no second one on this connection: it could have another target."""
    kept = [line for line in head.split(b"\r\n")[1:] if not line.lower().startswith(_OWN_HEADERS)]
    if parent and parent.user:
        pair = f"{unquote(parent.user)}:{unquote(parent.password)}".encode()
        kept.append(b"Proxy-Authorization: Basic " + base64.b64encode(pair))
    if method != "CONNECT":
        kept.append(b"Connection: close")
    return b"\r\n".join([f"{method} {where} HTTP/1.1".encode("latin-1"), *kept, b"", b""])


def _refuse(client: socket.socket, status: str, text: str) -> None:
    body = f"stoker: {text}\n".encode(errors="replace")
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    client.sendall(head.encode() + body)


def _pump_both(one: socket.socket, other: socket.socket) -> None:
    back = threading.Thread(target=_pump, args=(other, one), daemon=True)
    back.start()
    _pump(one, other)
    back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
