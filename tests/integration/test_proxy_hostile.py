"""Hostile clients against a running platform: whatever they send, a proxy refuses it once, and goes on for others."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from refused_requests import REFUSED_BODIES, REFUSED_HEADS
from running_platform import Platform, is_alive, wait_for
from strict_http import Reply, answers_in, requests_in

NAME = "hostile"
HANDLER = "def handle(req): return req\n"
QUIET = 0.15
"""Seconds without a byte after which a proxy is taken to wait for more: all that is asked of it takes milliseconds."""
GOOD = b"GET /function/hostile HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def function(platform: Platform) -> None:
    platform.deploy(NAME, HANDLER)


@pytest.fixture(autouse=True)
def proxies(platform: Platform) -> Iterator[None]:
    """Every test leaves the proxies that it found, and they answer."""
    before = proxy_pids(platform)
    yield
    assert proxy_pids(platform) == before and all(is_alive(pid) for pid in before)
    assert_usable(platform)


def proxy_pids(platform: Platform) -> set[int]:
    return {pid for role, pid in platform.pids().items() if role.startswith("proxy")}


def assert_usable(platform: Platform) -> None:
    with connected(platform) as sock:
        sock.sendall(GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")


@contextlib.contextmanager
def connected(platform: Platform, timeout: float = 20.0) -> Iterator[socket.socket]:
    with socket.create_connection(platform.http, timeout) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


def send(sock: socket.socket, *pieces: bytes) -> None:
    """Send as far as the other side takes it."""
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            sock.sendall(piece)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the connection ends; fails if it does not."""
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65536):
            data += piece
    return bytes(data)


# The requests that are refused


def for_the_function(request: bytes) -> bytes:
    return request.replace(b" / HTTP", b" /function/hostile HTTP", 1)


@pytest.mark.parametrize("name", REFUSED_HEADS)
def test_a_bad_head_is_refused_once_and_the_connection_closed(platform: Platform, name: str) -> None:
    status, request = REFUSED_HEADS[name]
    with connected(platform) as sock:
        send(sock, for_the_function(request))
        (reply,) = answers_in(read_all(sock), [])
    assert reply == Reply(status, closes=True)


@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_a_bad_body_is_refused_once_and_the_connection_closed(platform: Platform, name: str) -> None:
    with connected(platform) as sock:
        send(sock, for_the_function(REFUSED_BODIES[name]))
        (reply,) = answers_in(read_all(sock), [])
    assert reply == Reply(400, closes=True)


@pytest.mark.parametrize("name", ["length then coding", "a folded line", "two hosts", "a long header"])
def test_a_bad_head_is_refused_over_tls_as_well(platform: Platform, name: str) -> None:
    status, request = REFUSED_HEADS[name]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(platform.https, 20) as plain, context.wrap_socket(plain) as sock:
        send(sock, for_the_function(request))
        (reply,) = answers_in(read_all(sock), [])
    assert reply == Reply(status, closes=True)


def test_bytes_that_are_no_tls_end_the_connection(platform: Platform) -> None:
    with socket.create_connection(platform.https, 20) as sock:
        send(sock, GOOD * 10)
        assert b"HTTP/1.1 200" not in read_all(sock)


# Any bytes at all

_HEADERS = [
    b"Host: x",
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Connection: close",
    b"Connection: keep-alive, Content-Length, Host",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"X-Call-Id: a b",
    b"X-Forwarded-For: " + b"9, " * 50,
    b"Trailer: Content-Length",
    b"A:",
]
_TOKENS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\xff",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b'5;a="b\r\n',
    b"ffffffffffffffff\r\n",
    b"HTTP/1.1",
    b" HTTP/1.0\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length : 50\r\n",
    b"\r\n folded",
    GOOD,
]
_TARGETS = [
    b"/function/hostile",
    b"/function/hostile/..//%2F?a=b",
    b"/function/ghost",
    b"/function/",
    b"/healthz",
    b"http://x/function/hostile",
    b"*",
]
_BODIES = [
    b"",
    b"hello",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"2;x\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n",
    b"5\r\nhel",
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that may be good."""
    method = draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"CONNECT"]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0", b"2.0"]))
    lines = draw(st.lists(st.sampled_from(_HEADERS), max_size=4))
    if draw(st.booleans()):
        lines.insert(0, b"Host: x")
    head = b"%b %b HTTP/%b" % (method, draw(st.sampled_from(_TARGETS)), version)
    return b"\r\n".join([head, *lines, b"", draw(st.sampled_from(_BODIES))])


@st.composite
def good_requests(draw: st.DrawFn) -> bytes:
    body = draw(st.sampled_from([b"", b"hello"]))
    if not body:
        return b"%b /function/hostile HTTP/1.1\r\nHost: x\r\n\r\n" % draw(st.sampled_from([b"GET", b"HEAD"]))
    if draw(st.booleans()):
        return b"POST /function/hostile HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    return b"POST /function/hostile HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@st.composite
def hostile_bytes(draw: st.DrawFn) -> bytes:
    """Requests in a row, with some bytes of theirs changed, doubled, cut or moved."""
    data = b"".join(draw(st.lists(st.one_of(good_requests(), requests()), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 3))):
        at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        change = draw(st.sampled_from(["insert", "replace", "remove", "double", "byte"]))
        if change == "insert":
            data = data[:at] + draw(st.sampled_from(_TOKENS)) + data[at:]
        elif change == "replace":
            data = data[:at] + draw(st.sampled_from(_TOKENS)) + data[min(to, at + 20) :]
        elif change == "remove":
            data = data[:at] + data[min(to, at + 20) :]
        elif change == "double":
            data = data[:to] + data[at:to] + data[to:]
        else:
            data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    return data


@st.composite
def hostile_pieces(draw: st.DrawFn) -> list[bytes]:
    data = draw(hostile_bytes())
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.slow
@settings(
    max_examples=int(os.environ.get("STOKER_HOSTILE_EXAMPLES", "300")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(pieces=hostile_pieces())
@example(pieces=[b"POST /function/hostile HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhel"])
@example(pieces=[GOOD * 50])
@example(pieces=[GOOD + GOOD.replace(b"hostile", b"ghost") * 500])
def test_no_bytes_make_a_proxy_crash_hang_or_answer_twice(platform: Platform, pieces: list[bytes]) -> None:
    assert_answered_soundly(platform, pieces)


def assert_answered_soundly(platform: Platform, pieces: list[bytes]) -> None:
    """Send the pieces: there are no more answers than requests, and the connection and its proxy live on."""
    before = proxy_pids(platform)
    readings = requests_in(b"".join(pieces))
    methods = [reading.method for reading in readings]
    with connected(platform) as sock:
        send(sock, *pieces)
        data, ended = read_until_quiet(sock, methods)
        replies = answers_in(data, methods)
        assert len(replies) <= len(readings), (replies, readings)
        if not ended and len(replies) == len(readings) and all(reading.more for reading in readings):
            assert not any(reply.closes for reply in replies)
            send(sock, GOOD)
            more, _ = read_until_quiet(sock, [b"GET"], patience=10)
            assert [reply.status for reply in answers_in(more, [b"GET"])] == [200]
        elif not ended:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            replies = answers_in(data + read_all(sock), methods)
            assert len(replies) <= len(readings), (replies, readings)
    assert proxy_pids(platform) == before


def read_until_quiet(sock: socket.socket, methods: list[bytes], patience: float = QUIET) -> tuple[bytes, bool]:
    """What comes until every request has its answer, or nothing more comes; and whether the connection has ended."""
    data = b""
    sock.settimeout(patience)
    try:
        while not is_answered(data, methods):
            piece = sock.recv(65536)
            if not piece:
                return data, True
            data += piece
    except TimeoutError:
        return data, False
    except ConnectionError:
        return data, True
    finally:
        sock.settimeout(20)
    return data, False


def is_answered(data: bytes, methods: list[bytes]) -> bool:
    replies = answers_in(data, methods)
    return len(replies) >= len(methods) and all(reply.whole and not reply.closes for reply in replies)


# Slow clients


def calls_in_a_second(platform: Platform) -> tuple[int, float]:
    """How many calls one client gets through in a second, and the slowest of them in seconds."""
    number, slowest = 0, 0.0
    end = time.monotonic() + 1
    with connected(platform) as sock:
        while (began := time.monotonic()) < end:
            sock.sendall(GOOD)
            data, _ = read_until_quiet(sock, [b"GET"], patience=10)
            assert data.startswith(b"HTTP/1.1 200 ")
            slowest = max(slowest, time.monotonic() - began)
            number += 1
    return number, slowest


@pytest.mark.slow
def test_2000_idle_connections_and_500_slow_heads_leave_other_callers_unharmed(platform: Platform) -> None:
    alone, _ = calls_in_a_second(platform)
    idle = [socket.create_connection(platform.http, 20) for _ in range(2000)]
    slow = [socket.create_connection(platform.http, 20) for _ in range(500)]
    try:
        for sock in slow:
            sock.sendall(b"GET /function/hostile HTTP/1.1\r\nHost:")
        stop = threading.Event()
        dripping = threading.Thread(target=drip, args=(slow, stop))
        dripping.start()
        try:
            number, slowest = calls_in_a_second(platform)
        finally:
            stop.set()
            dripping.join()
        assert number > alone / 5 and slowest < 0.5, (alone, number, slowest)
        for sock in (idle[0], idle[-1]):
            sock.sendall(GOOD)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    finally:
        for sock in idle + slow:
            sock.close()


def drip(socks: list[socket.socket], stop: threading.Event) -> None:
    while not stop.wait(0.1):
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.send(b"x")


@pytest.mark.slow
def test_slow_heads_are_refused_after_ten_seconds(platform: Platform) -> None:
    with connected(platform) as sock:
        began = time.monotonic()
        sock.sendall(b"GET /function/hostile HTTP/1.1\r\nHost: x\r\n")
        (reply,) = answers_in(read_all(sock), [])
        assert reply == Reply(408, closes=True) and 9 < time.monotonic() - began < 13


@pytest.mark.slow
def test_100_readers_that_take_nothing_cost_little_and_leave_other_callers_unharmed(platform: Platform) -> None:
    platform.deploy("flood", "def handle(event, context): return {'body': b'x' * 8_000_000}\n")
    alone, _ = calls_in_a_second(platform)
    before = sum(map(resident_bytes, proxy_pids(platform)))
    socks = []
    try:
        for _ in range(100):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(platform.http)
            sock.sendall(b"GET /function/flood HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            socks.append(sock)
        number, slowest = calls_in_a_second(platform)
        assert number > alone / 5 and slowest < 1, (alone, number, slowest)
        grown = sum(map(resident_bytes, proxy_pids(platform))) - before
        assert grown < 150_000_000  # of the 800 MB that they asked for first
    finally:
        for sock in socks:
            sock.close()
    wait_for(lambda: calls_in_a_second(platform)[0] > alone / 3, "the old speed")


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096
