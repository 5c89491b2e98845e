"""Programs of the machine as functions, on a real platform: allowed, refused, missing, confined, ended."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running_platform import Platform, is_alive, wait_for

from stoker_sdk.errors import StokerError, Unavailable

pytestmark = pytest.mark.slow

_IMAGE = "docker.io/functions/alpine:latest"
_SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        if self.path == "/die":
            os._exit(7)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = os.environ["PORT"].encode() if self.path == "/port" else body
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
print("up", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def host(platform: Platform) -> Iterator[Platform]:
    one = Platform(like=platform, flags=("--allow-host-programs", "--docker-host", "unix:///nonexistent"))
    try:
        yield one.start()
    finally:
        if one.log_file.exists():
            print(one.log)
        one.delete()


def _deploy(host: Platform, name: str, program: str, mode: str = "", wait: bool = True, **variables: str) -> None:
    env = ({"mode": mode} if mode else {}) | variables
    host.deploy_image(name, _IMAGE, wait=wait, env_process=program, env_vars=env)


def _server(host: Platform) -> str:
    """The command of a server that every user may read; programs are split at spaces."""
    path = host.folder / "server.py"
    if not path.exists():
        path.write_text(_SERVER)
        path.chmod(0o755)
    python = next(p for p in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable) if Path(p).exists())
    return f"{python} -S {path}"


@pytest.mark.parametrize("mode", ["", "streaming", "serializing", "classic"])
def test_any_program_is_a_function_where_the_operator_allows_it(host: Platform, mode: str) -> None:
    name = f"cat-{mode or 'default'}"
    _deploy(host, name, "cat", mode)
    body = os.urandom(3_000_000)
    assert host.call(name, body).body == body
    status = host.status(name)
    assert (status.image, status.env_process) == (_IMAGE, "cat")


def test_without_the_flag_the_refusal_names_it(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--docker-host", "unix:///nonexistent"))
    with pytest.raises(StokerError, match="--allow-host-programs"):
        platform.deploy_image("cat", _IMAGE, env_process="cat")
    with pytest.raises(StokerError, match="--allow-host-programs"):
        platform.deploy_image("cat", _IMAGE, env_vars={"function_process": "cat"})
    assert all(status.name != "cat" for status in platform.client.functions())


def test_an_image_without_a_program_or_with_a_mark_is_a_containers(host: Platform) -> None:
    with pytest.raises(Unavailable, match="no Docker Engine"):
        host.deploy_image("bare", _IMAGE)
    with pytest.raises(Unavailable, match="no Docker Engine"):
        host.deploy_image("marked", f"docker:{_IMAGE}", env_process="cat")
    with pytest.raises(StokerError, match="mode is 'python'"):
        host.deploy_image("odd", _IMAGE, env_process="cat", env_vars={"mode": "python"})


def test_a_missing_program_is_named_to_callers_and_in_the_status(host: Platform) -> None:
    _deploy(host, "missing", "no-such-program --really", wait=False)
    condition = host.wait_failed("missing")
    assert "the program 'no-such-program' is not on this machine" in condition.message
    assert condition.code == "missing-program"
    answer = host.call("missing", b"x")
    assert answer.status == 503
    assert answer.headers["x-stoker-error"] == "function; missing-program"
    assert "no-such-program" in answer.text


def test_a_failing_program_gives_its_side_and_code(host: Platform) -> None:
    _deploy(host, "failing", "false")
    answer = host.call("failing", b"x")
    assert (answer.status, answer.headers["x-stoker-error"]) == (500, "function; exit-status")


def test_standard_error_is_in_the_functions_log_under_the_call_id(host: Platform) -> None:
    _deploy(host, "noisy", "ls /does-not-exist")
    host.call("noisy", b"x", headers={"X-Call-Id": "call-4711"})

    def line() -> Any:
        return next((entry for entry in host.logs("noisy") if "does-not-exist" in entry.text), None)

    assert "stderr:" not in wait_for(line, "the log").text


def test_replicas_of_a_server_have_ports_of_their_own(host: Platform) -> None:
    _deploy(host, "server", _server(host), "http", upstream_url="http://127.0.0.1:0")
    assert host.call("server", b"x" * 100_000).body == b"x" * 100_000
    host.scale("server", 3)
    with ThreadPoolExecutor(16) as threads:
        ports = {answer.body for answer in threads.map(lambda _: host.call("server", path="/port"), range(100))}
    assert len(ports) == 3


def test_an_update_of_a_server_drops_no_call(host: Platform) -> None:
    server = _server(host)
    _deploy(host, "rolling", server, "http", upstream_url="http://127.0.0.1:0")
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(host.call, "rolling", b"x") for _ in range(200)]
        _deploy(host, "rolling", server, "http", upstream_url="http://127.0.0.1:0", changed="yes")
        assert {call.result().status for call in calls} == {200}


def test_a_server_that_dies_is_started_again(host: Platform) -> None:
    _deploy(host, "mortal", _server(host), "http", upstream_url="http://127.0.0.1:0")
    answer = host.call("mortal", b"x", path="/die")
    assert (answer.status, answer.headers["x-stoker-error"]) == (502, "function; crashed")
    wait_for(lambda: host.condition("mortal").restarts == 1, "the restart to be counted")
    assert host.call("mortal", b"back").body == b"back"


def test_a_server_that_dies_while_it_starts_fails_the_deploy(host: Platform) -> None:
    _deploy(host, "stillborn", "false", "http", wait=False, upstream_url="http://127.0.0.1:0")
    assert "ended before it listened: exit code 1" in host.wait_failed("stillborn").message


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_program_is_confined_like_every_replica(host: Platform) -> None:
    _deploy(host, "confined", "grep -E Uid:|NoNewPrivs|CapEff /proc/self/status")
    lines = dict(line.split(":", 1) for line in host.call("confined", b"").text.splitlines())
    assert int(lines["Uid"].split()[0]) >= 1000
    assert lines["NoNewPrivs"].strip() == "1"
    assert int(lines["CapEff"].strip(), 16) == 0


def test_a_program_finds_its_folder_home_and_names(host: Platform) -> None:
    _deploy(host, "place", "env")
    lines = host.call("place", b"", path="/a?b=c").text.splitlines()
    assert {"HOME=/tmp", "OPENFAAS_NAME=place", "Http_Path=/a", "Http_Query=b=c"} <= set(lines)
    _deploy(host, "descriptors", "ls /proc/self/fd")
    assert host.call("descriptors", b"").text.split() == ["0", "1", "2", "3"]  # the last is of ls itself


def test_a_killed_replica_takes_the_processes_of_its_calls_along(host: Platform) -> None:
    _deploy(host, "sleeper", "sleep 1000")
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(host.call, "sleeper", b"x")
        (replica,) = host.replicas("sleeper")
        sleeping = wait_for(lambda: _children(replica), "the call's process")
        os.kill(replica, signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, sleeping)), "the end of the call's process")
        assert call.result().status == 502


def test_a_client_that_leaves_ends_the_process_of_its_call(host: Platform) -> None:
    _deploy(host, "left", "sleep 1000")
    connection = http.client.HTTPConnection(*host.http, timeout=20)
    connection.request("POST", "/function/left", b"x")
    (replica,) = host.replicas("left")
    sleeping = wait_for(lambda: _children(replica), "the call's process")
    connection.close()
    wait_for(lambda: not any(map(is_alive, sleeping)), "the end of the call's process")


def test_programs_sleep_and_wake_like_every_function(host: Platform) -> None:
    _deploy(host, "drowsy", "cat")
    host.scale("drowsy", 0)
    assert host.call("drowsy", b"awake").body == b"awake"


def test_tokens_are_checked_on_one_machine_too(host: Platform) -> None:
    variables = {"jwt_auth": "true", "STOKER_JWT_ISSUER_URL": "http://127.0.0.1:1"}
    _deploy(host, "guarded", "cat", wait=False, **variables)
    assert "the issuer's keys cannot be had" in host.wait_failed("guarded").message


def test_allowed_programs_are_still_there_after_a_restart_without_the_flag(
    make_platform: Callable[..., Platform],
) -> None:
    one = make_platform(flags=("--allow-host-programs",))
    _deploy(one, "cat", "cat")
    one.stop()
    one.flags = ()
    one.start()
    assert "--allow-host-programs" in one.log


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_a_stack_file_without_anything_to_build_deploys_a_program(host: Platform, tmp_path: Path) -> None:
    stack = tmp_path / "stack.yml"
    stack.write_text(
        "provider: {name: openfaas}\n"
        "functions:\n"
        "  words: {skip_build: true, image: none, fprocess: wc -w, environment: {mode: serializing}}\n"
    )
    command = [sys.executable, "-m", "stoker_cli", "deploy", "-f", str(stack), "--gateway", host.http_url]
    done = subprocess.run(command, env=host.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.call("words", b"one two three").text.strip() == "3"
