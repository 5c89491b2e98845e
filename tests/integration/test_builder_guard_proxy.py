"""The proxy of installers where the platform itself has a proxy: nothing gets past it by way of that one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from stoker_builder.guard_proxy import Parent, Target, Way, serve


@dataclass
class ParentProxy:
    """Answers plain requests itself, opens tunnels that echo to `known`, refuses others, and ends no connection
    that it is not asked to end.
    """

    port: int
    heads: list[bytes] = field(default_factory=list)

    def answer(self, client: socket.socket) -> None:
        with client:
            while b"\r\n\r\n" in (data := client.recv(65536)):
                for head in data.split(b"\r\n\r\n")[:-1]:
                    self.heads.append(head)
                    if head.startswith(b"CONNECT known"):
                        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                        client.sendall(client.recv(65536))
                        return
                    status = b"403 Forbidden" if head.startswith(b"CONNECT") else b"200 OK"
                    client.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
                    if b"connection: close" in head.lower():
                        return


def accept(listener: socket.socket, parent: ParentProxy) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=parent.answer, args=(client,), daemon=True).start()


@pytest.fixture
def parent() -> Iterator[ParentProxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        parent = ParentProxy(listener.getsockname()[1])
        threading.Thread(target=accept, args=(listener, parent), daemon=True).start()
        yield parent
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def guard(parent: ParentProxy) -> int:
    """Its port. It serves until the tests end."""
    way = Way(frozenset(), Parent(Target("127.0.0.1", parent.port), "us%40er", "word", ()))
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener, {}, way), daemon=True).start()
    return int(listener.getsockname()[1])


@contextmanager
def connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.settimeout(10)
        yield client


def ask(port: int, *requests: bytes) -> bytes:
    """Send them one after the other, each when something has come back; all that came until the end."""
    got = b""
    with connection(port) as client:
        try:
            for request in requests:
                client.sendall(request)
                got += client.recv(65536)
            while data := client.recv(65536):
                got += data
        except ConnectionError:
            pass
    return got


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "localhost", "x.localhost", "[::1]", socket.gethostname()]
)
def test_this_machine_is_refused_however_it_is_written(guard: int, parent: ParentProxy, host: str) -> None:
    for request in (f"CONNECT {host}:{parent.port}", f"GET http://{host}:{parent.port}/"):
        assert ask(guard, f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).startswith(b"HTTP/1.1 403 "), request
    assert parent.heads == []


def test_names_that_only_the_parent_knows_go_to_it(guard: int, parent: ParentProxy) -> None:
    with connection(guard) as client:
        client.sendall(b"CONNECT known.invalid:443 HTTP/1.1\r\nHost: known.invalid:443\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"through")
        assert client.recv(65536) == b"through"
    assert parent.heads[0].startswith(b"CONNECT known.invalid:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNAZXI6d29yZA==" in parent.heads[0]


EVIL = b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n\r\n"
PLAIN = b"GET http://else.invalid/a?b HTTP/1.1\r\nHost: else.invalid\r\nConnection: keep-alive\r\n"


@pytest.mark.parametrize(
    "requests",
    [
        (PLAIN + b"\r\n", EVIL),
        (PLAIN + b"\r\n" + EVIL,),
        (b"CONNECT else.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n", EVIL),
        (b"CONNECT else.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n" + EVIL,),
    ],
    ids=["after an answer", "at once", "after a refusal", "at once after a refusal"],
)
def test_a_connection_takes_one_request_to_the_parent(
    guard: int, parent: ParentProxy, requests: tuple[bytes, ...]
) -> None:
    assert ask(guard, *requests).count(b"HTTP/1.1 ") == 1
    assert len(parent.heads) == 1
    if requests[0].startswith(b"GET"):
        assert parent.heads[0].startswith(b"GET http://else.invalid:80/a?b HTTP/1.1\r\nHost: else.invalid\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://else.invalid/ HTTP/1.1\r\nX: y\n\n" + EVIL,
        b"GET http://127.0.0.1\\.else.invalid/ HTTP/1.1\r\n\r\n",
        b"CONNECT 127.0.0.1\t.else.invalid:443 HTTP/1.1\r\n\r\n",
    ],
)
def test_what_two_proxies_could_read_differently_goes_nowhere(guard: int, parent: ParentProxy, head: bytes) -> None:
    ask(guard, head)
    assert parent.heads == []
