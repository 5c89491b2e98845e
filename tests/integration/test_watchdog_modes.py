"""What every mode of the watchdog does alike: one suite over all of them, against real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running_platform import PYTHONPATH, is_alive, wait_for
from watchdog_process import MODES, WatchdogProcess, watchdog

pytestmark = pytest.mark.slow
Start = Callable[..., WatchdogProcess]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(mode: str, tmp_path: Path) -> Iterator[Start]:
    stack = []

    def begin(**options: str) -> WatchdogProcess:
        stack.append(watchdog(tmp_path, mode, **options))
        return stack[-1].__enter__()

    yield begin
    for one in stack:
        one.__exit__(None, None, None)


def test_a_random_body_of_five_megabytes_comes_back_as_it_was(start: Start) -> None:
    body = os.urandom(5_000_000)
    assert start().call("/echo", body).body == body


def test_a_body_in_chunks_comes_back_as_it_was(start: Start) -> None:
    pieces = [os.urandom(70_000) for _ in range(20)]
    answer = start().call("/echo", iter(pieces), headers={"Transfer-Encoding": "chunked"})
    assert answer.body == b"".join(pieces)


def test_method_path_query_and_headers_reach_the_function(start: Start, mode: str) -> None:
    answer = start().call("/seen?a=1&b=%20", b"x", method="PUT", headers={"x-custom-one": "first", "X-Call-Id": "id-1"})
    seen = json.loads(answer.body)
    assert answer.status == 200
    assert (seen["method"], seen["path"], seen["query"]) == ("PUT", "/seen", "a=1&b=%20")
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert headers["x-custom-one"] == "first"
    assert headers["x-call-id"] == "id-1"


def test_shell_characters_are_never_interpreted(start: Start) -> None:
    text = "`touch hacked`; $(touch hacked) | touch hacked && touch hacked > hacked"
    one = start()
    seen = json.loads(one.call("/seen?" + "$(touch%20hacked);touch", text.encode(), headers={"X-Text": text}).body)
    assert {name.lower(): value for name, value in seen["headers"].items()}["x-text"] == text
    assert not (one.folder / "hacked").exists()


def test_a_hundred_calls_at_once_get_each_their_own_answer(start: Start) -> None:
    one = start(exec_timeout="60s")
    bodies = [f"body {number}".encode() * 1000 for number in range(100)]
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda body: one.call("/echo", body), bodies))
    assert [answer.body for answer in answers] == bodies


def test_a_call_that_fails_says_so_with_side_and_code(start: Start, mode: str) -> None:
    answer = start().call("/die", b"x")
    assert answer.status in (500, 502)
    assert answer.headers["x-stoker-error"] == {
        "python": "function; exception",
        "http": "function; crashed",
    }.get(mode, "function; exit-status")
    assert answer.text.count("\n") == 1 or mode == "classic"


def test_a_call_beyond_its_timeout_gets_the_status_of_its_mode(start: Start, mode: str) -> None:
    one = start(exec_timeout="500ms")
    answer = one.call("/slow?seconds=20", b"x")
    assert answer.status == {"serializing": 500, "classic": 408}.get(mode, 504)
    assert answer.headers["x-stoker-error"] == "function; timeout"
    if mode == "classic":
        assert answer.body == b"Killed process.\n"
    assert one.call("/echo", b"still there").body == b"still there"


def test_a_bare_number_is_a_timeout_in_seconds(start: Start, mode: str) -> None:
    answer = start(exec_timeout="1").call("/slow?seconds=20", b"x")
    assert answer.headers["x-stoker-error"] == "function; timeout"


def test_calls_over_max_inflight_are_refused_in_the_words_of_the_contract(start: Start) -> None:
    one = start(max_inflight="1")
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(one.call, "/slow?seconds=1.5", b"x")
        wait_for(lambda: one.call("/_/ready", method="GET").status == 429, "the limit to be reached")
        refused = one.call("/echo", b"x")
        health = one.call("/_/health", method="GET")
        assert slow.result().body == b"slept"
    assert refused.status == 429
    assert refused.headers["x-openfaas-internal"] == "faas-middleware"
    assert refused.headers["content-type"] == "text/plain"
    assert refused.text.strip() == "Concurrent request limit exceeded. Max concurrent requests: 1"
    assert (health.status, health.body) == (200, b"OK")
    assert one.call("/echo", b"again").body == b"again"


def test_probes_take_get_only(start: Start) -> None:
    one = start()
    for path in ("/_/health", "/_/ready"):
        assert one.call(path, method="GET").status == 200
        assert one.call(path, b"x", method="POST").status == 405


def test_metrics_have_the_names_of_the_contract_and_leave_probes_out(start: Start) -> None:
    one = start()
    one.call("/echo", b"x")
    one.call("/echo", b"x", method="GET")
    text = one.metrics()
    assert 'http_requests_total{code="200",method="post"} 1' in text
    assert 'http_requests_total{code="200",method="get"} 1' in text
    assert 'http_request_duration_seconds_count{code="200",method="post"} 1' in text
    assert "\nhttp_requests_in_flight 0\n" in text
    assert one.call("/else", method="GET", port=one.metrics_port).status == 404
    assert one.call("/metrics", b"", method="POST", port=one.metrics_port).status == 405


def test_sigterm_lets_calls_finish_and_ends_with_zero(start: Start) -> None:
    one = start()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(one.call, "/slow?seconds=1", b"x")
        wait_for(lambda: "in_flight 1" in one.metrics(), "the call to run")
        assert one.stop() == 0
        assert slow.result().body == b"slept"
    assert not one.lock.exists()


def test_sigterm_first_unready_then_serves_on_for_the_interval(start: Start) -> None:
    one = start(healthcheck_interval="1500ms")
    assert one.lock.exists()
    one.process.terminate()
    wait_for(lambda: one.call("/_/health", method="GET").status == 503, "the health page to say so")
    assert not one.lock.exists()
    assert one.call("/_/ready", method="GET").status == 503
    assert one.call("/echo", b"served on").body == b"served on"
    assert one.process.wait(10) == 0


def test_the_healthcheck_flag_tells_by_the_lock_file(start: Start) -> None:
    one = start()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": PYTHONPATH, "TMPDIR": str(one.folder)}
    command = [sys.executable, "-m", "stoker_watchdog", "-run-healthcheck"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    one.lock.unlink()
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 1
    assert one.call("/_/health", method="GET").status == 503


def test_without_the_lock_file_probes_still_work(start: Start) -> None:
    one = start(suppress_lock="true")
    assert not one.lock.exists()
    assert one.call("/_/health", method="GET").status == 200


def test_a_client_that_leaves_ends_what_ran_for_it(start: Start, mode: str, tmp_path: Path) -> None:
    if mode in ("python", "http"):
        pytest.skip("what a handler or a server started lives as long as the replica")
    one = start()
    note = tmp_path / "pids"
    _leave(one, f"/child?seconds=60&file={note}", lambda: note.exists() and note.read_text().endswith("\n"))
    pids = [int(pid) for pid in note.read_text().split()]
    wait_for(lambda: not any(map(is_alive, pids)), "the end of the call's processes")
    assert 'code="499"' in one.metrics()


def test_what_a_call_has_started_ends_with_the_call(start: Start, mode: str) -> None:
    if mode in ("python", "http"):
        pytest.skip("what a handler or a server started lives as long as the replica")
    child = int(start().call("/child", b"").body)
    wait_for(lambda: not is_alive(child), "the end of the call's child")


def test_a_thousand_calls_leave_no_descriptor_and_no_process_behind(start: Start, mode: str) -> None:
    one = start(**({} if mode in ("python", "http") else {"fprocess": "cat"}))
    wait_for(lambda: one.call("/echo", b"x").status == 200, "a first call")
    wait_for(lambda: one.metrics() and len(one.descriptors) < 40, "a quiet watchdog")
    before, children = len(one.descriptors), len(one.children())
    with ThreadPoolExecutor(8) as threads:
        for answer in threads.map(lambda n: one.call("/echo", b"%d" % n), range(1000)):
            assert answer.status == 200
    wait_for(lambda: len(one.descriptors) <= before + 1, "as few descriptors as before", 10)
    assert len(one.children()) == children


def test_request_lines_have_the_shape_that_parsers_know(start: Start, mode: str) -> None:
    one = start(log_callid="true")
    one.call("/echo?a=b", b"x" * 39, headers={"X-Call-Id": "call-77"})
    one.call("/echo", b"x", headers={"User-Agent": "kube-probe/1.30"})
    shape = "POST /echo?a=b - 200 -" if mode == "streaming" else "POST /echo?a=b - 200 OK -"
    wait_for(lambda: shape in one.log, "the line")
    line = next(line for line in one.log.splitlines() if shape in line)
    assert line.endswith("s) [call-77]")
    assert mode == "python" or "ContentLength: 39B" in line
    assert "POST /echo - " not in one.log


def _leave(one: WatchdogProcess, path: str, when: Callable[[], bool]) -> None:
    with one.connect() as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        wait_for(when, "the call to run")
