"""The programs of mode `native`, started as the interface says and as a container does, without a platform around."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running_platform import wait_for

from stoker_builder.templates import find_template

HANDLERS = Path(__file__).parent / "languages"
PROGRAMS = {"node": "node", "go": "go", "ruby": "ruby"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artefact of the conformance handler; it is the program's folder."""
    name: str = request.param
    if shutil.which(PROGRAMS[name]) is None:
        pytest.skip(f"{PROGRAMS[name]} is not on this machine; tests/needs.sh installs it")
    template = find_template(name)
    folder = tmp_path_factory.mktemp(name)
    shutil.copytree(template.path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("function"))
    shutil.copytree(HANDLERS / name, folder / "function")
    if name == "go":
        for command in (["generate", "."], ["build", "-o", "handler", "."]):
            subprocess.run(["go", *command], cwd=folder, check=True, env=os.environ | {"CGO_ENABLED": "0"})
    (folder / "command").write_text(template.fprocess)
    return folder


class Native:
    """A running program with its end of the status line."""

    def __init__(self, process: subprocess.Popen[bytes], address: str | int, status: socket.socket | None) -> None:
        self.process = process
        self._address = address
        self._status = status.makefile("rb") if status else None

    def said(self) -> Any:
        """The next thing that it says of itself."""
        assert self._status is not None
        return json.loads(self._status.readline())

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._address if isinstance(self._address, int) else 80)
        connection.timeout = 10
        if isinstance(self._address, str):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(self._address)
        return connection

    def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextmanager
def native(folder: Path, **variables: str) -> Iterator[Native]:
    """As a replica: the listening socket is descriptor 3, the status descriptor 4."""
    path = f"/tmp/stoker-native-{os.getpid()}-{time.monotonic_ns()}.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(100)
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    moved = [os.dup2(listener.fileno(), 100), os.dup2(theirs.fileno(), 101)]
    start = f"exec 3<&100 4<&101 100<&- 101<&-; exec {(folder / 'command').read_text()}"
    environment = {
        "PATH": os.environ["PATH"],
        "STOKER_LISTENER": "3",
        "STOKER_STATUS": "4",
        "exec_timeout": "5s",
        **variables,
    }
    process = subprocess.Popen(
        ["bash", "-c", start], cwd=folder, env=environment, pass_fds=moved, stdout=2, stderr=None
    )
    for descriptor in moved:
        os.close(descriptor)
    theirs.close()
    listener.close()
    try:
        yield Native(process, path, ours)
    finally:
        process.kill()
        process.wait()
        ours.close()
        Path(path).unlink()


def test_health_is_told_after_failures_in_a_row_and_when_it_is_good_again(program: Path, tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    with native(program, SICK=str(sick), STOKER_HEALTH_PERIOD="0.05", STOKER_HEALTH_FAILURES="2") as one:
        assert one.said() == {"ready": {}}
        sick.touch()
        assert "broken on purpose" in one.said()["health"]
        assert one.call("POST", "/echo", b"still served") == (200, b"still served")
        sick.unlink()
        assert one.said() == {"health": ""}


def test_the_pages_that_a_cluster_probes_say_what_the_hook_says(program: Path, tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    pace = {"STOKER_HEALTH_PERIOD": "0.05", "STOKER_HEALTH_FAILURES": "1", "STOKER_REPLACE_AFTER": "500ms"}
    with native(program, SICK=str(sick), **pace) as one:
        assert one.said() == {"ready": {}}
        assert one.call("GET", "/_/ready") == one.call("GET", "/_/health") == (200, b"OK")
        sick.touch()
        assert one.said()["health"]
        status, text = one.call("GET", "/_/ready")
        assert status == 503 and text.startswith(b"unhealthy: ") and text.endswith(b"broken on purpose\n")
        assert one.call("GET", "/_/health") == (200, b"OK")  # it may get well by itself
        wait_for(lambda: one.call("GET", "/_/health") == (status, text), "the time after which it is replaced")
        sick.unlink()
        assert one.said() == {"health": ""}
        assert one.call("GET", "/_/ready") == one.call("GET", "/_/health") == (200, b"OK")


def test_what_starts_unhealthy_says_so_before_it_is_ready(program: Path, tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    sick.touch()
    with native(program, SICK=str(sick), STOKER_HEALTH_PERIOD="0.05") as one:
        assert "broken on purpose" in one.said()["health"]
        assert one.said() == {"ready": {}}
        assert one.call("GET", "/_/ready")[0] == 503
        sick.unlink()
        assert one.said() == {"health": ""}
        assert one.call("GET", "/_/ready") == (200, b"OK")


def test_a_failed_start_says_why_and_with_which_code(program: Path) -> None:
    with native(program, FAIL_INIT="1") as one:
        said = one.said()
        assert said["code"] == "init-failed" and "no way to begin" in said["failed"]
        assert one.process.wait(10) == 1


def test_sigterm_ends_an_idle_program_with_exit_code_0_though_connections_are_open(program: Path) -> None:
    with native(program) as one:
        assert one.said() == {"ready": {}}
        connection = one.connect()
        connection.request("POST", "/echo", b"x")
        assert connection.getresponse().read() == b"x"
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(5) == 0
        connection.close()


def test_a_client_that_leaves_does_not_disturb_the_next(program: Path) -> None:
    with native(program) as one:
        assert one.said() == {"ready": {}}
        for path in ("/stream", "/sleep"):
            connection = one.connect()
            connection.request("POST", path, b"0.2")
            connection.close()
        wait_for(lambda: b"in_flight 0" in one.call("GET", "/_/metrics")[1], "the end of the calls that were left")
        assert one.call("POST", "/echo", b"x") == (200, b"x")


def test_what_is_no_http_is_refused_and_the_next_call_served(program: Path) -> None:
    with native(program) as one:
        assert one.said() == {"ready": {}}
        for rubbish in (
            b"\x00\xff\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\n",
        ):
            connection = one.connect()
            connection.sock.sendall(rubbish)
            connection.close()
        assert one.call("POST", "/echo", b"x") == (200, b"x")


def test_as_in_a_container_it_listens_on_its_port_and_drains(program: Path) -> None:
    port, metrics = _free_port(), _free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "port": str(port),
        "STOKER_METRICS_PORT": str(metrics),
        "suppress_lock": "true",  # the lock file of a machine's /tmp is nobody's to make here
        "healthcheck_interval": "500ms",
    }
    command = (program / "command").read_text().split()
    process = subprocess.Popen(command, cwd=program, env=environment, stdout=2)
    one = Native(process, port, None)
    try:
        wait_for(lambda: _answers(one), "the program")
        assert one.call("POST", "/echo", b"x") == (200, b"x")
        assert b"http_requests_total" in Native(process, metrics, None).call("GET", "/metrics")[1]
        process.terminate()
        wait_for(lambda: one.call("GET", "/_/health")[0] == 503, "unreadiness while it still serves")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def _answers(one: Native) -> bool:
    try:
        return one.call("GET", "/_/health") == (200, b"OK")
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
