"""Networks of their own for programs of strangers: a loopback, and nothing else (network_namespaces(7))."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1


@contextmanager
def own_network() -> Iterator[int | None]:
    """A descriptor for `enter_network`; who has entered reaches no address but a 127.0.0.1 of its own. None where the
    kernel does not let us. Only for a process with one thread.
    """
    network = _make()
    try:
        yield network
    finally:
        if network is not None:
            os.close(network)


def enter_network(descriptor: int) -> None:
    """From now on this process has that network. Needs root. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "the network cannot be entered")


@contextmanager
def within(network: int) -> Iterator[None]:
    """Sockets that are made meanwhile are of that network, for good."""
    before = _current()
    try:
        enter_network(network)
        try:
            yield
        finally:
            enter_network(before)
    finally:
        os.close(before)


def _make() -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    before = _current()
    try:
        if libc.unshare(_CLONE_NEWNET) != 0:
            return None
        try:
            _raise_loopback()
            return _current()
        finally:
            enter_network(before)
    finally:
        os.close(before)


def _current() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
