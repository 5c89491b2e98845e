"""The command line itself: help, exit codes, and that no failure shows a traceback."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_control import PASSWORD, RunningControl, Shell, running_control, shell

from stoker_cli.main import ALIASES, COMMANDS
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey

GREET = FunctionKey("openfaas-fn", "greet")


@pytest.fixture
def stoker(tmp_path: Path) -> Shell:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return shell(tmp_path, OPENFAAS_URL=f"http://127.0.0.1:{port}")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[RunningControl]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "password").write_text(PASSWORD)
    with running_control(tmp_path) as running:
        running.run(running.provider.deploy(FunctionSpec("greet", "image:1", "openfaas-fn"), create=True))
        yield running


def started(stoker: Shell, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "stoker_cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=stoker.folder,
        env=dict(stoker.environment),
    )


def test_help_names_every_command_and_imports_none(stoker: Shell) -> None:
    done = stoker("--help")
    assert done.code == 0
    assert all(f"\n  {name} " in done.out for name in COMMANDS)


@pytest.mark.parametrize("name", [name for name in [*COMMANDS, *ALIASES] if name != "serve"])
def test_every_command_has_help_with_an_example(stoker: Shell, name: str) -> None:
    done = stoker(name, "--help")
    assert done.code == 0, done.err
    assert "Usage: stoker" in done.out
    assert f"  stoker {ALIASES.get(name, name)} " in done.out or f"stoker {ALIASES.get(name, name)}\n" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lst",), "there is no command 'lst'; did you mean 'list'?"),
        (("list", "--nope"), "--nope"),
        (("describe",), "NAME"),
        (("scale", "greet", "many"), "many"),
        (("up",), "there is no stack.yml in this folder"),
        (("deploy", "--name", "x"), "there is no stack.yml in this folder"),
        (
            ("up", "-f", "stack.yml", "--filter", "a", "--regex", "b"),
            "--filter and --regex exclude each other",
        ),
        (("deploy", "--name", "a", "--image", "b", "-e", "x"), "--env 'x' is not NAME=VALUE"),
        (("invoke", "greet", "-X", "BREW"), "--method 'BREW' is not one of"),
        (("invoke", "greet", "-H", "nothing"), "--header 'nothing' is not a header"),
        (("login",), "the password is missing"),
        (("deploy", "--name", "a", "--image", "b", "--timeout", "0"), "--timeout must be more than nothing"),
        (("invoke", "greet", "--sign", "X"), "--sign names the header and --key the key"),
        (("generate", "--api", "v1"), "--api"),
        (("generate",), "there is no stack.yml in this folder"),
        (("diff",), "there is no stack.yml in this folder"),
        (("push",), "there is no stack.yml in this folder"),
        (("publish",), "there is no stack.yml in this folder"),
        (("local-run", "x"), "there is no stack.yml in this folder"),
        (("template", "pull", "stack"), "there is no stack.yml in this folder"),
        (("up", "--parallel", "0"), "--parallel"),
        (("ready", "--attempts", "0"), "--attempts"),
        (("completion", "tcsh"), "tcsh"),
        (("namespace", "create"), "NAME"),
        (("namespace", "create", "a", "--label", "x"), "--label 'x' is not NAME=VALUE"),
        (("secret", "generate", "a", "--length", "1"), "--length"),
        (("logs", "greet", "--lines", "-2"), "--lines -2 is less than nothing"),
        (("secret", "create", "a", "--from-literal", "x", "--from-file", "y"), "exclude each other"),
        (("logs", "greet", "--since", "1m", "--since-time", "2026-01-31T12:00:00Z"), "exclude each other"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_at_most_two_lines(
    stoker: Shell, arguments: tuple[str, ...], words: str
) -> None:
    if "-f" in arguments:
        stoker.file("stack.yml", "provider: {name: openfaas}\nfunctions: {a: {image: b}}\n")
    done = stoker(*arguments)
    assert done.code == 2, done
    assert words in done.err and len(done.err.splitlines()) <= 2


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("describe", "a"), ("invoke", "a"), ("logs", "a"), ("scale", "a", "1"), ("remove", "a")]
    + [("namespace", "list"), ("namespace", "create", "a")]
    + [("namespaces",), ("secret", "list"), ("deploy", "--name", "a", "--image", "b"), ("login", "-p", "x")],
)
def test_without_a_platform_every_command_says_how_to_start_one(stoker: Shell, arguments: tuple[str, ...]) -> None:
    done = stoker(*arguments)
    assert done.code == 1
    assert "Is Stoker running? Start it with `stoker serve`" in done.err.replace("\n", " ")
    assert len(done.err.splitlines()) <= 3 and "Traceback" not in done.err


def test_version_works_without_a_platform(stoker: Shell) -> None:
    done = stoker("version")
    assert done.code == 0 and "Is Stoker running?" in done.out
    assert stoker("version", "--short-version").out.strip()


def test_a_broken_stack_file_is_named_with_its_place(stoker: Shell) -> None:
    stoker.file("stack.yml", "provider:\n  name: openfaas\nfunctions:\n  a:\n    image: [x]\n")
    done = stoker("up")
    assert done.code == 1
    assert done.err == "stoker: stack.yml:5:5: functions.a.image: must be a single value, and is a list\n"


def test_a_host_that_answers_something_else_is_named(stoker: Shell, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = started(stoker, "list", "-g", address)
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"answered what is not this API" in err and b"Traceback" not in err


def test_an_answer_that_breaks_off_is_a_failure(stoker: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = started(stoker, "invoke", "greet", "-g", address)
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello")
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert out == b"hello" and b"broke off" in err and b"Traceback" not in err


def test_lines_of_a_log_that_is_followed_appear_at_once_and_ctrl_c_ends_it_quietly(
    stoker: Shell, control: RunningControl
) -> None:
    process = started(stoker, "logs", "greet", "--follow", "-g", control.url)
    assert process.stdout
    for number in range(3):
        control.run(control.provider.print(GREET, f"line {number}"))
        assert process.stdout.readline().endswith(f"line {number}\n".encode())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


def test_a_reader_that_goes_away_is_no_noise(stoker: Shell, control: RunningControl) -> None:
    process = started(stoker, "logs", "greet", "--follow", "-g", control.url)
    assert process.stdout and process.stderr
    control.run(control.provider.print(GREET, "first"))
    assert process.stdout.readline().endswith(b"first\n")
    process.stdout.close()
    control.run(control.provider.print(GREET, "second"))
    assert process.wait(30) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_bug_is_one_line_and_its_traceback_only_on_demand(stoker: Shell) -> None:
    script = "import sys, stoker_builder.templates as templates; templates.list_templates = None; "
    script += "sys.argv = ['stoker', 'template', 'list']; from stoker_cli.main import main; main()"

    def broken(debug: str) -> subprocess.CompletedProcess[str]:
        environment = {**stoker.environment, "STOKER_DEBUG": debug}
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    plain, debugged = broken(""), broken("1")
    assert (plain.returncode, debugged.returncode) == (1, 1)
    assert plain.stderr == (
        "stoker: internal error: TypeError: 'NoneType' object is not callable; set STOKER_DEBUG=1 for the traceback\n"
    )
    assert "Traceback" in debugged.stderr
