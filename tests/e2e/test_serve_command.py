"""`stoker serve` where it cannot start, or not with everything: one clear message, exit code 1, nothing half-done."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest
from running_platform import Platform

HELLO = "def handle(req):\n    return 'hello'\n"


@pytest.fixture
def idle(platform: Platform) -> Iterator[Platform]:
    """A folder for a server that is not started."""
    one = Platform(like=platform)
    yield one
    one.delete()


def serve(platform: Platform, *flags: str, **changes: str) -> tuple[int, str]:
    """Run the command until it ends by itself; returns its exit code and what it wrote to standard error."""
    done = subprocess.run(
        platform.command(*flags),
        env=platform.environment | changes,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert not platform.ready_file.exists()
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_a_folder_of_another_running_server_is_refused_and_that_one_goes_on(platform: Platform, idle: Platform) -> None:
    platform.deploy("undisturbed", HELLO)
    before = platform.pids()
    code, said = serve(idle, "--data-dir", str(platform.data.path))
    assert code == 1
    assert f"process {before['supervisor']}" in said and "--data-dir" in said and len(said.splitlines()) <= 2
    assert platform.pids() == before
    assert platform.call("undisturbed").text == "hello"


@pytest.mark.parametrize("flag", ["--http", "--https", "--metrics"])
def test_a_port_that_is_taken_is_named_with_its_flag(idle: Platform, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = serve(idle, flag, address)
    assert code == 1
    assert address in said and flag in said
    idle.assert_no_process_is_left()
    assert idle.start().client.functions() == []


def test_the_ports_of_another_running_server_are_taken_too(platform: Platform, idle: Platform) -> None:
    """The proxies share their port by SO_REUSEPORT, which must not let a stranger in."""
    host, port = platform.http
    code, said = serve(idle, "--http", f"{host}:{port}")
    assert (code, "--http" in said) == (1, True)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", None])
def test_a_password_file_that_cannot_be_used_is_named(idle: Platform, content: bytes | None) -> None:
    idle.data.path.mkdir(exist_ok=True, mode=0o711)
    if content is None:
        idle.data.password.mkdir()
    else:
        idle.data.password.write_bytes(content)
    code, said = serve(idle)
    assert code == 1
    assert str(idle.data.password) in said
    idle.assert_no_process_is_left()


def test_a_data_folder_that_is_a_file_is_refused(idle: Platform) -> None:
    path = idle.folder / "file"
    path.write_text("")
    code, said = serve(idle, "--data-dir", str(path))
    assert (code, str(path) in said) == (1, True)


@pytest.mark.parametrize(
    "flags", [("--http", "nonsense"), ("--proxies", "0"), ("--max-body", "much"), ("--no-such-flag",)]
)
def test_wrong_usage_is_exit_code_2(idle: Platform, flags: tuple[str, ...]) -> None:
    code, said = serve(idle, *flags)
    assert (code, flags[0] in said) == (2, True), said


@pytest.mark.slow
def test_a_spec_that_cannot_be_read_is_set_aside_and_the_rest_starts(own_platform: Platform) -> None:
    platform = own_platform
    for name in ("good", "torn", "strange", "renamed", "lost"):
        platform.deploy(name, HELLO + f"# {name}\n")
    lost = platform.status("lost").image.rpartition(":")[2]
    platform.stop()
    folder = platform.data.functions / "openfaas-fn"
    (folder / "torn.json").write_bytes((folder / "torn.json").read_bytes()[:50])
    (folder / "strange.json").write_text('{"some": "thing"}')
    (folder / "renamed.json").rename(folder / "other.json")
    platform.data.artefact(lost).rename(platform.folder / "lost")
    platform.start()
    assert platform.call("good").text == "hello"
    names = {status.name for status in platform.client.functions()}
    assert "good" in names and not names & {"torn", "strange", "other", "renamed"}
    aside = {path.name.split(".")[1] for path in platform.data.set_aside.iterdir()}
    assert aside == {"torn", "strange", "other"}
    for name in ("torn.json", "strange.json", "other.json", "lost"):
        assert name in platform.log
    platform.deploy("torn", HELLO)
    assert platform.call("torn").text == "hello"


def test_the_password_is_made_once_and_needed(own_platform: Platform) -> None:
    path = own_platform.data.password
    password = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600 and len(password.strip()) > 30
    own_platform.stop()
    own_platform.start()
    assert path.read_text() == password


def test_a_server_can_be_stopped_while_it_starts(make_platform: Callable[..., Platform], idle: Platform) -> None:
    for _ in range(5):
        process = subprocess.Popen(idle.command(), env=idle.environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.terminate()
        _, said = process.communicate(timeout=30)
        assert b"Traceback" not in said
        idle.assert_no_process_is_left()
    assert idle.start().client.functions() == []


def test_a_limit_of_async_bodies_that_the_queue_does_not_have_is_refused(idle: Platform) -> None:
    code, said = serve(idle, "--max-async-body", "2Gi")
    assert code == 2 and "1Gi" in said
