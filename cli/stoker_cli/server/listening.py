"""Sockets that the supervisor opens, and processes inherit: the public ones, one for each proxy on the same address,
and those behind which a process is started when somebody connects.

SO_REUSEPORT lets the kernel spread connections over the proxies. It would also let a second server share the address
unnoticed, so the address is first tried without it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from stoker_sdk.errors import StokerError

_BACKLOG = 4096
_PRIVATE_BACKLOG = 256


def listen(address: tuple[str, int], number: int, flag: str) -> list[socket.socket]:
    """`number` listening sockets on one address; port 0 takes a free one. `flag` is named when it is taken."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        port = _free_port(family, host, port)
        return [_open(family, host, port) for _ in range(number)]
    except OSError as error:
        reason = error.strerror or str(error)
        raise StokerError(f"cannot listen on {host}:{port}: {reason}; choose another address with {flag}") from error


def _free_port(family: socket.AddressFamily, host: str, port: int) -> int:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
        taken: int = probe.getsockname()[1]
        return taken


def _open(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    sock.listen(_BACKLOG)
    return sock


def listen_privately(path: Path) -> socket.socket:
    """A socket that only this user can open."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(old_mask)
    listener.listen(_PRIVATE_BACKLOG)
    return listener


def url(scheme: str, sock: socket.socket) -> str:
    """The address to call: an unspecified host is this machine."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
