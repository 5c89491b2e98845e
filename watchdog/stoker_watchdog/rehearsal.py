"""Goes through a replica's start and first calls once, in the fork server itself, before the first fork.

The interpreter writes into code when it runs it for the first times (PEP 659), and modules make things on first use.
What is done here already is shared by all forks instead of being copied in each: starts get quicker, replicas smaller.
Nothing is left open: the loop is closed, its thread has ended, no socket is bound. The loop is asyncio's own, because
libuv keeps a pipe for signals once it has been used, in this process and anew in every fork, where `keep_descriptors`
would close it behind its back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from stoker_watchdog.confine import use_paths
from stoker_watchdog.front import Front
from stoker_watchdog.handler import Handler, load_handler
from stoker_watchdog.logs import LogFile, LogStream
from stoker_watchdog.python_runner import PythonRunner
from stoker_watchdog.settings import Settings, parse_settings
from stoker_watchdog.zeroes import give_back_zeroes
from stoker_wire.server import Server

_after_fork: Callable[[], None] = getattr(threading, "_after_fork", lambda: None)
"""What every fork will run first; private to the library, so only where it is there."""
_TIMES = 12
"""More often than the interpreter waits before it specialises (8)."""
_REQUEST = b"POST /?name=you HTTP/1.1\r\nHost: r\r\nX-Call-Id: r\r\nContent-Length: 5\r\n\r\nhello"
_SETTINGS = (
    b'{"id": "r", "function": "f", "namespace": "n", "handler": "function.handler", "environment": {"PATH": "/bin"}, '
    b'"paths": [], "groups": [], "secrets": "", "log": "", "timeout": 60.0, "memory": 0, "cores": 0.0}'
)


def rehearse() -> None:
    folder = str(Path(__file__).parent / "rehearsed")
    for _ in range(_TIMES):
        _start(folder)


def _start(folder: str) -> None:
    settings = parse_settings(_SETTINGS)
    _after_fork()
    environment = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    use_paths([folder])
    handler = load_handler("example.handler")
    loop = asyncio.SelectorEventLoop()
    give_back_zeroes(loop)
    loop.run_until_complete(_call(settings, handler))
    loop.close()
    _forget(folder)


async def _call(settings: Settings, handler: Handler) -> None:
    loop = asyncio.get_running_loop()
    runner = PythonRunner(settings, handler, loop)
    front = Front(settings, runner, LogStream(LogFile("")))
    server = Server(front.handle)
    loop.add_signal_handler(signal.SIGTERM, server.drain)
    client, accepted = socket.socketpair()
    client.setblocking(False)
    await loop.connect_accepted_socket(server, accepted)
    for _ in range(_TIMES):
        await loop.sock_sendall(client, _REQUEST)
        await loop.sock_recv(client, 4096)
    client.close()
    server.close()
    front.stop()
    runner.threads.close()


def _forget(folder: str) -> None:
    sys.path.remove(folder)
    for name in ("example", "example.handler"):
        del sys.modules[name]
    for path in (folder, f"{folder}/example"):
        sys.path_importer_cache.pop(path, None)
