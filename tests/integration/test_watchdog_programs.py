"""What is particular to the modes that start a process for each call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running_platform import PYTHONPATH, is_alive, wait_for
from watchdog_process import WatchdogProcess, watchdog

pytestmark = pytest.mark.slow


def _script(folder: Path, text: str) -> str:
    path = folder / "program.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def _raw(one: WatchdogProcess, request: bytes) -> bytes:
    with one.connect() as client:
        client.sendall(request)
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer


def test_streaming_passes_output_on_while_the_program_runs(tmp_path: Path) -> None:
    with watchdog(tmp_path, "streaming") as one, one.connect() as client:
        client.sendall(b"POST /pieces HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        begun = time.monotonic()
        first = client.recv(65536)
        while b"piece 1" not in first:
            first += client.recv(65536)
        assert b"piece 2" not in first
        rest = first
        while b"0\r\n\r\n" not in rest:
            rest += client.recv(65536)
        assert b"piece 2" in rest
        assert time.monotonic() - begun > 0.4


def test_streaming_gives_the_body_to_the_program_while_it_comes(tmp_path: Path) -> None:
    with watchdog(tmp_path, "streaming", fprocess="cat") as one, one.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst")
        answer = b""
        while b"first" not in answer:
            answer += client.recv(65536)
        client.sendall(b"-rest")
        while b"-rest" not in answer:
            answer += client.recv(65536)


def test_streaming_that_fails_after_its_first_byte_is_broken_off(tmp_path: Path) -> None:
    with watchdog(tmp_path, "streaming") as one:
        answer = _raw(one, b"POST /die?say=half HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert b" 200 OK" in answer
        assert b"half" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        assert 'code="500"' in one.metrics()


def test_a_slow_reader_holds_the_program_back_instead_of_filling_memory(tmp_path: Path) -> None:
    script = _script(tmp_path, "head -c 300000000 /dev/zero")
    with watchdog(tmp_path, "streaming", fprocess=script) as one, one.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        client.recv(1000)
        time.sleep(0.5)  # if nothing held it back, it would have produced everything by now
        status = Path(f"/proc/{one.pid}/status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0])
        assert resident < 100_000
        received = 1000
        while received < 300_000_000:
            data = client.recv(1 << 20)
            assert data
            received += len(data)


def test_a_program_that_does_not_read_its_input_still_answers(tmp_path: Path) -> None:
    script = _script(tmp_path, "echo done")
    for mode in ("streaming", "serializing", "classic"):
        with watchdog(tmp_path, mode, fprocess=script) as one:
            assert one.call("/", os.urandom(3_000_000)).body == b"done\n"


def test_standard_error_goes_to_the_log_with_date_and_stream(tmp_path: Path) -> None:
    script = _script(tmp_path, 'echo "to the log" >&2; printf unfinished >&2; echo answer')
    with watchdog(tmp_path, "streaming", fprocess=script) as one:
        assert one.call("/").body == b"answer\n"
        wait_for(lambda: "unfinished" in one.log, "the log")
        line = next(line for line in one.log.splitlines() if "to the log" in line)
        assert line.endswith(" stderr: to the log")
        assert line[4] == line[7] == "/"
    with watchdog(tmp_path, "streaming", fprocess=script, prefix_logs="false") as one:
        one.call("/")
        wait_for(lambda: "\nto the log\n" in one.log, "the log")


def test_a_line_longer_than_the_buffer_is_cut_and_the_log_goes_on(tmp_path: Path) -> None:
    script = _script(tmp_path, "head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; echo after >&2; echo answer")
    with watchdog(tmp_path, "serializing", fprocess=script, log_buffer_size="1000") as one:
        assert one.call("/").body == b"answer\n"
        wait_for(lambda: "stderr: after" in one.log, "the line behind the long one")
        lines = [line.partition("stderr: ")[2] for line in one.log.splitlines() if "stderr: x" in line]
        assert len(lines) == 300
        assert {len(line) for line in lines} == {1000}


def test_serializing_answers_with_type_length_and_duration(tmp_path: Path) -> None:
    with watchdog(tmp_path, "serializing", content_type="application/json") as one:
        answer = one.call("/echo", b"{}", headers={"Content-Type": "text/x"})
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-length"] == "2"
        assert float(answer.headers["x-duration-seconds"]) > 0
    with watchdog(tmp_path, "streaming") as one:
        answer = one.call("/echo", b"{}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "x-duration-seconds" not in answer.headers


def test_an_output_of_fifty_megabytes_is_answered_whole(tmp_path: Path) -> None:
    script = _script(tmp_path, "head -c 50000000 /dev/zero")
    with watchdog(tmp_path, "serializing", fprocess=script) as one:
        assert len(one.call("/").body) == 50_000_000


def test_classic_mirrors_the_type_and_combines_output_and_errors(tmp_path: Path) -> None:
    script = _script(tmp_path, "echo out; echo err >&2; exit $(( ${Http_X_Exit:-0} ))")
    with watchdog(tmp_path, "classic", fprocess=script) as one:
        answer = one.call("/", b"x", headers={"Content-Type": "text/x-mine"})
        assert answer.headers["content-type"] == "text/x-mine"
        assert answer.body == b"out\nerr\n"
        assert "x-duration-seconds" in answer.headers
        failed = one.call("/", b"x", headers={"X-Exit": "4"})
        assert failed.status == 500
        assert "exit code 4" in failed.text
        assert failed.body.endswith(b"out\nerr\n")
        assert "x-duration-seconds" not in failed.headers
        for method in ("HEAD", "OPTIONS", "TRACE"):
            assert one.call("/", method=method).status == 405
    with watchdog(tmp_path, "classic", fprocess=script, combine_output="false") as one:
        assert one.call("/", b"x").body == b"out\n"
        wait_for(lambda: "err" in one.log, "standard error in the log")


def test_classic_gives_the_request_as_json_when_asked(tmp_path: Path) -> None:
    with watchdog(tmp_path, "classic", fprocess="cat", marshal_request="true") as one:
        found = json.loads(one.call("/", b"\x00\xff", headers={"x-one": "1"}).body)
        assert found["body"] == {"raw": "AP8="}
        assert found["header"]["X-One"] == ["1"]


def test_classic_without_cgi_headers_gives_none(tmp_path: Path) -> None:
    with watchdog(tmp_path, "classic", fprocess="env", cgi_headers="false") as one:
        assert b"Http_" not in one.call("/", b"x").body
    with watchdog(tmp_path, "classic", fprocess="env") as one:
        lines = one.call("/a%20b", b"four").text.splitlines()
        assert {"Http_ContentLength=4", "Http_Content_Length=4", "Http_Path=/a b"} <= set(lines)
        assert any(line.startswith("Http_Host=127.0.0.1") for line in lines)


def test_a_callers_header_cannot_stand_for_the_request_line(tmp_path: Path) -> None:
    with watchdog(tmp_path, "streaming", fprocess="env") as one:
        headers = {
            "Path": "/evil",
            "Method": "EVIL",
            "Query": "evil",
            "Proxy": "http://evil",
            "X-Ok": "1",
            "PATH": "/x",
        }
        lines = one.call("/good", b"x", headers=headers).text.splitlines()
        assert "Http_Path=/good" in lines
        assert "Http_Method=POST" in lines
        assert "Http_X_Ok=1" in lines
        assert "evil" not in "\n".join(lines).lower()
        assert f"PATH={os.environ['PATH']}" in lines


def test_a_path_with_an_encoded_nul_stays_as_it_was_sent(tmp_path: Path) -> None:
    with watchdog(tmp_path, "streaming", fprocess="env") as one:
        assert "Http_Path=/a%00b" in one.call("/a%00b", b"x").text.splitlines()


def test_headers_too_large_for_an_environment_are_refused_clearly(tmp_path: Path) -> None:
    # The kernel takes a quarter of the stack's limit for arguments and environment.
    big = {f"BIG_{number}": "x" * 103_000 for number in range(20)}
    with watchdog(tmp_path, "streaming", fprocess="cat", **big) as one:
        answer = one.call("/", b"x", headers={f"X-{number}": "y" * 5000 for number in range(11)})
        assert (answer.status, answer.headers["x-stoker-error"]) == (431, "client; headers-too-large")
        assert "environment" in answer.text


def test_a_program_has_three_descriptors_and_plain_signals(tmp_path: Path) -> None:
    script = _script(tmp_path, "ls /proc/self/fd; grep -E 'Sig(Ign|Blk)' /proc/self/status")
    with watchdog(tmp_path, "serializing", fprocess=script) as one:
        *descriptors, _listing, blocked, ignored = one.call("/", b"x").text.splitlines()
        assert descriptors == ["0", "1", "2"]
        assert int(blocked.split()[1], 16) == 0
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            assert not int(ignored.split()[1], 16) >> (number - 1) & 1, number


def test_a_daemon_that_keeps_the_output_open_does_not_hold_the_answer(tmp_path: Path) -> None:
    script = _script(tmp_path, "setsid sleep 30 & echo answer")
    with watchdog(tmp_path, "streaming", fprocess=script) as one:
        begun = time.monotonic()
        assert one.call("/", b"x").body == b"answer\n"
        assert time.monotonic() - begun < 5


def test_a_missing_program_ends_the_watchdog_with_one_line_that_names_it(tmp_path: Path) -> None:
    with watchdog(tmp_path, "streaming", ready=False, fprocess="no-such-program --flag") as one:
        assert one.process.wait(10) == 1
        assert "the program 'no-such-program' is not on this machine" in one.log
        assert "Traceback" not in one.log


def test_a_program_that_goes_missing_fails_the_call_by_name(tmp_path: Path) -> None:
    script = _script(tmp_path, "cat")
    with watchdog(tmp_path, "streaming", fprocess=script) as one:
        assert one.call("/", b"x").body == b"x"
        Path(script).unlink()
        answer = one.call("/", b"x")
        assert (answer.status, answer.headers["x-stoker-error"]) == (500, "function; missing-program")
        assert "program.sh" in answer.text


def test_a_killed_watchdog_takes_its_processes_along(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = _script(tmp_path, f"setsid sh -c 'echo $$ > {note}.new; mv {note}.new {note}; sleep 1000'")
    with watchdog(tmp_path, "streaming", fprocess=script) as one, one.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        wait_for(note.exists, "the program to run")
        one.process.kill()
        one.process.wait()
        wait_for(lambda: not is_alive(int(note.read_text())), "the end of the program")


def test_flags_print_the_version_and_refuse_others(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stoker_watchdog"]
    shown = subprocess.run([*command, "-version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("stoker watchdog ")
    assert subprocess.run([*command, "--nonsense"], capture_output=True, check=False).returncode == 2


def test_classic_logs_headers_and_bodies_when_asked(tmp_path: Path) -> None:
    with watchdog(tmp_path, "classic", fprocess="cat", write_debug="true", debug_headers="true") as one:
        one.call("/", b"line one\nline two", headers={"X-Seen": "yes"})
        wait_for(lambda: "answer of 17 bytes" in one.log, "the log")
        assert "request header X-Seen: yes" in one.log
        assert "request of 17 bytes: line one\\nline two" in one.log


def test_a_python_handler_in_a_container_prints_to_the_log_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "speaks.py").write_text("def handle(req):\n    print('said', req)\n    return req\n")
    with watchdog(tmp_path, "python", handler="speaks", PYTHONPATH=f"{PYTHONPATH}:{tmp_path}") as one:
        assert one.call("/", b"this").body == b"this"
        wait_for(lambda: "\nsaid this\n" in one.log, "the print")


def test_a_python_handler_that_cannot_be_imported_ends_the_watchdog_with_one_line(tmp_path: Path) -> None:
    with watchdog(tmp_path, "python", ready=False, handler="no_such_module") as one:
        assert one.process.wait(10) == 1
        assert "the handler cannot be imported" in one.log
        assert "Traceback" not in one.log


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_as_process_1_it_waits_for_orphans_that_ended(tmp_path: Path) -> None:
    script = _script(tmp_path, "setsid sh -c 'sleep 0.2 & exit 0'; echo answer")
    namespace = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    one = WatchdogProcess(tmp_path, {"mode": "streaming", "fprocess": script}, namespace)
    try:
        one.wait_ready()
        (first,) = one.children()
        for _ in range(5):
            assert one.call("/", b"x").body == b"answer\n"
        children = Path(f"/proc/{first}/task/{first}/children")
        assert children.read_text()
        wait_for(lambda: not children.read_text(), "the end of the orphans")
        os.kill(first, signal.SIGTERM)
        assert one.process.wait(10) == 0
    finally:
        one.process.kill()
        one.process.wait()
