"""What is particular to mode `http`: one long-lived program, to which calls are passed on."""

from __future__ import annotations

import base64
import os
import socket
import time
from pathlib import Path

import pytest
from running_platform import is_alive, wait_for
from watchdog_process import PROGRAM, WatchdogProcess, watchdog

pytestmark = pytest.mark.slow

_ECHO_SOCKET = """#!/usr/bin/env python3
import base64, hashlib, os, socket
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    client, _ = server.accept()
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        data = client.recv(65536)
        if not data:
            break
        head += data
    if b"pgrade: websocket" in head:
        client.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n")
        while data := client.recv(65536):
            client.sendall(data)
    client.close()
"""


def _child(one: WatchdogProcess) -> int:
    """The server among the watchdog's children; the other one looks after what is left over."""
    return next(pid for pid in one.children() if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_statuses_redirects_and_head_pass_as_they_are(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http") as one:
        assert one.call("/teapot", b"x").status == 418
        moved = one.call("/moved", b"x")
        assert (moved.status, moved.headers["location"]) == (302, "/elsewhere")
        head = one.call("/echo", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        seen = one.call("/seen", b"x", headers={"Host": "my.example", "X-Two": "2"}).json()
        assert seen["headers"]["Host"] == "my.example"


def test_answers_and_errors_carry_the_duration(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http", exec_timeout="300ms") as one:
        good, late = one.call("/echo", b"x"), one.call("/slow?seconds=3", b"x")
        assert all(len(answer.headers["x-duration-seconds"].partition(".")[2]) == 6 for answer in (good, late))
        assert late.headers["x-openfaas-internal"] == "of-watchdog"


def test_a_caller_may_ask_for_less_time_but_not_for_more(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http", exec_timeout="1s") as one:
        begun = time.monotonic()
        assert one.call("/slow?seconds=5", b"x", headers={"X-Timeout": "200ms"}).status == 504
        assert time.monotonic() - begun < 0.9
        assert one.call("/slow?seconds=5", b"x", headers={"X-Timeout": "1h"}).status == 504
        assert one.call("/slow?seconds=0.3", b"x", headers={"X-Timeout": "nonsense"}).status == 200


def test_events_come_as_they_are_sent_and_are_not_bounded_by_the_timeout(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http", exec_timeout="600ms") as one, one.connect() as client:
        client.sendall(b"POST /pieces HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nContent-Length: 0\r\n\r\n")
        got = b""
        while b"piece 1" not in got:
            got += client.recv(65536)
        assert b"piece 2" not in got
        while not got.endswith(b"0\r\n\r\n"):
            data = client.recv(65536)
            assert data, got
            got += data
        assert b"piece 2" in got


def test_an_upgraded_connection_passes_bytes_both_ways(tmp_path: Path) -> None:
    program = tmp_path / "echo.py"
    program.write_text(_ECHO_SOCKET)
    program.chmod(0o755)
    with watchdog(tmp_path, "http", fprocess=str(program)) as one, one.connect() as client:
        key = base64.b64encode(os.urandom(16))
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % key
        )
        got = b""
        while b"\r\n\r\n" not in got:
            got += client.recv(65536)
        assert got.startswith(b"HTTP/1.1 101")
        sent = os.urandom(200_000)
        client.sendall(sent)
        got = got.partition(b"\r\n\r\n")[2]
        while len(got) < len(sent):
            got += client.recv(65536)
        assert got == sent


def test_a_program_that_dies_fails_its_calls_and_ends_the_watchdog(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http") as one:
        answer = one.call("/die", b"x")
        assert (answer.status, answer.headers["x-stoker-error"]) == (502, "function; crashed")
        assert answer.headers["x-openfaas-internal"] == "of-watchdog"
        assert one.process.wait(10) == 1
        assert "exit code 3" in one.log
        assert "stderr: about to die" in one.log
        assert not one.lock.exists()


def test_a_program_that_ends_well_but_unasked_ends_the_watchdog_too(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http") as one:
        os.kill(_child(one), 15)
        assert one.process.wait(10) == 1


def test_the_program_is_told_to_end_after_its_calls(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http", healthcheck_interval="500ms") as one:
        child = _child(one)
        one.process.terminate()
        wait_for(lambda: one.call("/_/health", method="GET").status == 503, "the drain")
        assert one.call("/echo", b"still served").body == b"still served"
        assert is_alive(child)
        assert one.process.wait(10) == 0
        assert not is_alive(child)


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "stubborn.sh"
    program.write_text(f"#!/bin/sh\ntrap '' TERM\n{PROGRAM} serve\n")
    program.chmod(0o755)
    with watchdog(tmp_path, "http", fprocess=str(program)) as one:
        pids = one.children()
        one.process.terminate()
        assert one.process.wait(15) == 0
        wait_for(lambda: not any(map(is_alive, pids)), "the end of everything")


def test_calls_that_come_before_the_program_listens_wait_for_it(tmp_path: Path) -> None:
    program = tmp_path / "late.sh"
    program.write_text(f"#!/bin/sh\nsleep 1\nexec {PROGRAM} serve\n")
    program.chmod(0o755)
    with watchdog(tmp_path, "http", ready=False, fprocess=str(program)) as one:
        one.wait_listening()
        assert one.call("/_/health", method="GET").status == 200
        assert one.call("/_/ready", method="GET").status == 503
        assert one.call("/echo", b"patience").body == b"patience"


def test_a_port_that_somebody_else_has_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with watchdog(tmp_path, "http", ready=False, upstream_url=url) as one:
            assert one.process.wait(10) == 1
            assert f"port {port} of upstream_url is taken" in one.log
            assert "PORT" in one.log


def test_a_program_that_ends_before_it_listens_is_reported(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http", ready=False, fprocess="false") as one:
        assert one.process.wait(10) == 1
        assert "the program 'false' ended before it listened: exit code 1" in one.log


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1:1", "http://", "http://127.0.0.1:99999", "http://h/?q"])
def test_an_upstream_url_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with watchdog(tmp_path, "http", ready=False, upstream_url=url) as one:
        assert one.process.wait(10) == 1
        assert "upstream_url is" in one.log
        assert "Traceback" not in one.log


def test_the_ready_path_is_the_programs_own_answer_and_no_call(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http", ready=False, ready_path="/unready", max_inflight="1") as one:
        one.wait_listening()
        wait_for(lambda: one.call("/_/ready", method="GET").body == b"not yet", "the program's answer")
        assert one.call("/_/ready", method="GET").status == 503
        assert one.call("/_/health", method="GET").status == 200
        assert "http_requests_total{" not in one.metrics()


def test_a_buffered_request_comes_with_its_length(tmp_path: Path) -> None:
    body = os.urandom(3_000_000)
    with watchdog(tmp_path, "http", buffer_http="true") as one:
        pieces = iter([body[:1_000_000], body[1_000_000:]])
        assert one.call("/echo", pieces, headers={"Transfer-Encoding": "chunked"}).body == body
        seen = one.call("/seen", iter([b"12", b"345"]), headers={"Transfer-Encoding": "chunked"}).json()
        assert seen["headers"]["Content-Length"] == "5"


def test_a_slow_reader_holds_the_program_back(tmp_path: Path) -> None:
    with watchdog(tmp_path, "http") as one:
        size = 60_000_000
        with one.connect() as client:
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            sent = bytes(1_000_000)
            for _ in range(60):
                client.sendall(sent)
            time.sleep(0.5)  # if nothing held it back, the answer would be in the watchdog's memory by now
            status = Path(f"/proc/{one.pid}/status").read_text()
            assert int(status.partition("VmRSS:")[2].split()[0]) < 100_000
            got = 0
            while got < size:
                got += len(client.recv(1 << 20))
