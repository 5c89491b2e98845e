"""The commands that manage functions, as processes, against the control API with an in-memory provider."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_control import PASSWORD, RunningControl, Shell, running_control, shell

from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey
from stoker_sdk.origin import check_origin

STACK = """
version: 1.0
provider:
  name: openfaas
functions:
  greet:
    lang: python3
    handler: ./greet
    image: greet
    timeout: 30s
    labels: {team: blue}
  shout:
    image: example/shout:2
"""

GREET = FunctionKey("openfaas-fn", "greet")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[RunningControl]:
    with running_control(tmp_path) as running:
        yield running


@pytest.fixture
def stoker(tmp_path: Path, control: RunningControl) -> Shell:
    """A shell on the machine of the platform: the password is where the platform keeps it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "password").write_text(f"{PASSWORD}\n")
    return shell(tmp_path, OPENFAAS_URL=control.url)


@pytest.fixture
def project(stoker: Shell) -> Shell:
    """A folder with a stack of two functions, one to be built and one not."""
    stoker.file("stack.yml", STACK)
    stoker.file("greet/handler.py", "def handle(req):\n    return req\n")
    return stoker


def deployed(control: RunningControl, name: str = "greet", **settings: object) -> None:
    control.run(control.provider.deploy(FunctionSpec(name, "image:1", "openfaas-fn", **settings), create=True))


def test_up_builds_what_has_source_deploys_all_and_prints_their_urls(project: Shell, control: RunningControl) -> None:
    done = project("up")

    assert (done.code, done.out.splitlines()) == (
        0,
        [f"greet: {control.url}/function/greet", f"shout: {control.url}/function/shout"],
    )
    assert "[greet]   installing nothing" in done.err
    greet, shout = control.provider.list("openfaas-fn")
    assert greet.image.startswith("stoker.local/greet@sha256:")
    assert greet.labels == {"team": "blue"} and greet.annotations == {"stoker.dev/timeout": "30s"}
    assert shout.image == "example/shout:2"


def test_up_of_the_same_sources_gives_the_same_image_and_no_new_revision(
    project: Shell, control: RunningControl
) -> None:
    project("up")
    before = control.provider.get(GREET)
    assert project("up").code == 0
    after = control.provider.get(GREET)
    assert (after.image, after.stoker) == (before.image, before.stoker)


def test_up_stops_at_the_first_failure_and_keeps_what_was_deployed(project: Shell, control: RunningControl) -> None:
    project.file("stack.yml", STACK + "  broken: {lang: python3, handler: ./greet}\n  later: {image: later:1}\n")
    done = project("up")
    assert done.code == 1
    assert done.err.splitlines()[-1] == "stoker: function 'broken': the tests of 'broken' failed"
    assert "1 failed" in done.err
    assert [status.name for status in control.provider.list("openfaas-fn")] == ["greet", "shout"]


def test_up_reports_a_function_that_does_not_start(project: Shell, control: RunningControl) -> None:
    control.provider.break_image("example/shout:2", "exited with 3")
    done = project("up", "--filter", "shout")
    assert done.code == 1
    assert "function 'shout': it did not start: " in done.err and "exited with 3" in done.err
    assert done.out == ""


def test_deploy_lays_flags_over_the_stack(project: Shell, control: RunningControl) -> None:
    project("secret", "create", "key", "--from-literal", "x")
    done = project(
        *(
            "deploy",
            "--filter=greet",
            "-e",
            "A=1",
            "-l",
            "team=red",
            "--annotation",
            "a=b",
            "--secret",
            "key",
        ),
        *(
            "--memory-limit",
            "64Mi",
            "--cpu-request=10m",
            "--readonly",
            "--fprocess",
            "cat",
            "--constraint",
            "a=b",
        ),
    )
    assert done.code == 0, done.err
    status = control.provider.get(GREET)
    assert (status.env_vars, status.labels, status.secrets) == ({"A": "1"}, {"team": "red"}, ["key"])
    assert status.annotations == {"stoker.dev/timeout": "30s", "a": "b"}
    assert status.limits and status.limits.memory == "64Mi"
    assert status.requests and status.requests.cpu == "10m"
    assert status.read_only_root_filesystem and status.env_process == "cat" and status.constraints == ["a=b"]


def test_deploy_without_a_stack_needs_only_a_name_and_an_image(stoker: Shell, control: RunningControl) -> None:
    done = stoker("deploy", "--name", "greet", "--image", "example/greet")
    assert done.code == 0, done.err
    assert control.provider.get(GREET).image == "example/greet:latest"


def test_deploy_with_an_image_builds_nothing(project: Shell, control: RunningControl) -> None:
    done = project("deploy", "--name", "greet", "--image", "example/greet:1")
    assert done.code == 0 and "building" not in done.err
    assert control.provider.get(GREET).image == "example/greet:1"


def test_deploy_refuses_one_image_for_several_functions(project: Shell) -> None:
    done = project("deploy", "--image", "a:1")
    assert done.code == 2 and "--image is for one function, and 2 are chosen" in done.err


def test_deploy_without_update_refuses_a_function_that_exists(stoker: Shell, control: RunningControl) -> None:
    deployed(control)
    for flag in ("--update=false", "--no-update"):
        done = stoker("deploy", flag, "--name", "greet", "--image", "b:1")
        assert done.code == 1 and "exists already" in done.err
    assert control.provider.get(GREET).image == "image:1"


def test_deploy_with_replace_removes_the_function_first(stoker: Shell, control: RunningControl) -> None:
    deployed(control)
    deployed(control, "other")
    done = stoker("deploy", "--update=false", "--replace", "--name", "greet", "--image", "b:1")
    assert done.code == 0, done.err
    status = control.provider.get(GREET)
    assert status.image == "b:1" and status.stoker and status.stoker.revision == 1


def test_deploy_refuses_update_and_replace_together(stoker: Shell) -> None:
    done = stoker("deploy", "--update", "--replace", "--name", "greet", "--image", "b:1")
    assert done.code == 2 and "exclude each other" in done.err


def test_deploy_says_which_secret_is_missing(stoker: Shell) -> None:
    done = stoker("deploy", "--name", "greet", "--image", "b:1", "--secret", "nope")
    assert done.code == 1 and "secret 'nope' does not exist" in done.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--label", "team=not allowed"), "label 'team' has the value 'not allowed'"),
        (("--memory-limit", "lots"), "limits.memory 'lots' is not a quantity"),
        (("--env", "1A=x"), "environment variable '1A' is not allowed"),
        (("--annotation", "bad key=x"), "annotation key 'bad key' is not allowed"),
    ],
)
def test_deploy_refuses_values_that_cannot_be_used(stoker: Shell, flags: tuple[str, str], words: str) -> None:
    done = stoker("deploy", "--name", "greet", "--image", "b:1", *flags)
    assert done.code == 1 and words in done.err and "Traceback" not in done.err


def test_build_prints_images_and_deploys_nothing(project: Shell, control: RunningControl) -> None:
    done = project("build")
    assert done.code == 0, done.err
    (image,) = done.out.splitlines()
    assert image.startswith("stoker.local/greet@sha256:")
    assert "[shout] nothing to build" in done.err
    assert control.provider.list("openfaas-fn") == []


def test_an_unreachable_handler_folder_is_named(project: Shell) -> None:
    project.file("stack.yml", STACK.replace("./greet", "../outside"))
    done = project("up")
    assert done.code == 1 and "functions.greet.handler: '../outside' leaves the stack's folder" in done.err


def test_list_shows_names_calls_and_replicas(stoker: Shell, control: RunningControl) -> None:
    deployed(control)
    deployed(control, "busy")
    control.counters.start("greet.openfaas-fn")
    control.counters.end("greet.openfaas-fn", 200, 0.1)

    assert stoker("list").out.split() == [
        "Function",
        "Invocations",
        "Replicas",
        "busy",
        "0",
        "1",
        "greet",
        "1",
        "1",
    ]
    assert stoker("ls", "-q", "--sort", "invocations").out.splitlines() == ["greet", "busy"]
    assert "image:1" in stoker("list", "-v").out
    assert [each["name"] for each in json.loads(stoker("list", "--json").out)] == ["busy", "greet"]


def test_list_of_nothing_is_an_empty_table_and_an_empty_array(stoker: Shell) -> None:
    assert stoker("list").out.split() == ["Function", "Invocations", "Replicas"]
    assert stoker("list", "--json").out == "[]\n"


def test_describe_shows_state_and_settings(stoker: Shell, control: RunningControl) -> None:
    deployed(control, env_vars={"LEVEL": "debug"}, labels={"team": "blue"})
    done = stoker("describe", "greet")
    assert done.code == 0, done.err
    for words in (
        "Name:                greet",
        "Ready",
        "LEVEL: debug",
        "team: blue",
        f"{control.url}/function/greet",
    ):
        assert words in done.out
    assert json.loads(stoker("describe", "greet", "--json").out)["stoker"]["state"] == "ready"


def test_describe_of_an_unknown_function_says_so(stoker: Shell) -> None:
    done = stoker("describe", "nope")
    assert (done.code, done.out) == (1, "")
    assert done.err == "stoker: no such function: 'nope'; `stoker list` shows what is deployed\n"


def test_scale_sets_the_number_of_replicas(stoker: Shell, control: RunningControl) -> None:
    deployed(control)
    assert stoker("scale", "greet", "3").out == "greet: 3 replicas asked for\n"
    assert control.provider.get(GREET).replicas == 3
    assert stoker("scale", "greet", "-1").code == 2
    assert stoker("scale", "nope", "1").code == 1


def test_remove_by_name_and_by_stack(project: Shell, control: RunningControl) -> None:
    deployed(control)
    deployed(control, "shout")
    assert project("rm", "greet").out == "greet: removed\n"
    assert project("remove").out.splitlines() == ["greet: was not deployed", "shout: removed"]
    assert project("delete", "greet").code == 1


def test_a_function_of_a_repository_is_changed_by_force_only(project: Shell, control: RunningControl) -> None:
    marks = check_origin("me", "web", "greet").annotations
    deployed(control, annotations=marks)
    for command in (("up",), ("deploy", "--name", "greet", "--image", "i:2"), ("remove", "greet"), ("remove",)):
        refused = project(*command)
        assert refused.code == 1 and "greet comes from the git repository me/web" in refused.err, command
    assert control.provider.get(GREET).image == "image:1"
    control.run(
        control.provider.deploy(FunctionSpec("greet", "image:2", "openfaas-fn", annotations=marks), create=False)
    )
    rolled = project("rollback", "greet")
    assert rolled.code == 0 and "its next push undoes this" in rolled.err
    assert project("deploy", "--name", "greet", "--image", "i:2", "--force").code == 0
    assert project("up", "--force").code == 0
    control.run(
        control.provider.deploy(FunctionSpec("greet", "image:2", "openfaas-fn", annotations=marks), create=False)
    )
    assert project("remove", "greet", "--force").out == "greet: removed\n"


def test_logs_prints_lines_in_order_and_as_json(stoker: Shell, control: RunningControl) -> None:
    deployed(control)
    for number in range(3):
        control.run(control.provider.print(GREET, f"line {number}\n", instance="greet-0", at="2026-01-31T12:00:00Z"))

    assert stoker("logs", "greet").out.splitlines() == [
        f"2026-01-31T12:00:00Z greet (greet-0) line {number}" for number in range(3)
    ]
    lines = stoker("logs", "greet", "--json", "--lines", "1", "--tail=false").out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["line 2\n"]
    assert stoker("logs", "greet", "--since", "1m").out == ""
    assert stoker("logs", "greet", "--instance", "other").out == ""


def test_logs_of_an_unknown_function_fail(stoker: Shell) -> None:
    done = stoker("logs", "nope")
    assert done.code == 1 and "nope" in done.err


def test_invoke_sends_standard_input_and_prints_the_answer_byte_for_byte(
    stoker: Shell, control: RunningControl
) -> None:
    body = bytes(range(256)) * 8192  # more than is read ahead, so it goes out in chunks
    assert stoker("invoke", "greet", stdin=body).raw == body[::-1]
    assert stoker("invoke", "greet", stdin=b"abc").raw == b"cba"
    method, path, headers, sent = control.invocations[-1]
    assert (method, path, sent) == ("POST", "/function/greet.openfaas-fn", b"abc")
    assert headers["Content-Length"] == "3" and headers["Content-Type"] == "text/plain"
    assert "Authorization" not in headers


def test_invoke_passes_method_query_and_headers(stoker: Shell, control: RunningControl) -> None:
    flags = ("-X", "put", "--query", "a=1 2", "--query", "b=", "-H", "X-One: 1", "--content-type", "text/csv")
    assert stoker("invoke", "greet", "-n", "dev", *flags).code == 0
    method, path, headers, _ = control.invocations[-1]
    assert (method, path) == ("PUT", "/function/greet.dev?a=1+2&b=")
    assert (headers["X-One"], headers["Content-Type"]) == ("1", "text/csv")


def test_invoke_fails_when_the_function_does(stoker: Shell) -> None:
    done = stoker("invoke", "fails")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == [
        "stoker: server returned unexpected status code: 500 - no luck",
        "X-Stoker-Error: function handler-failed: ValueError, see the log",
    ]


def test_secrets_are_created_listed_updated_and_removed(stoker: Shell, control: RunningControl) -> None:
    path = stoker.file("value.txt", "from a file\n")
    assert stoker("secret", "create", "one", stdin=b"piped\n").code == 0
    assert stoker("secret", "create", "two", "--from-file", str(path)).code == 0
    assert stoker("secret", "create", "one", "--from-literal", "x").code == 1
    assert stoker("secret", "create", "one", "--from-literal", "x", "--replace").code == 0
    assert stoker("secret", "update", "two", "--from-literal", "y").code == 0
    assert [each["name"] for each in json.loads(stoker("secret", "list", "--json").out)] == ["one", "two"]
    assert stoker("secret", "remove", "one").code == 0
    assert stoker("secret", "remove", "one").code == 1
    assert stoker("secret", "list").out.split() == ["Name", "Namespace", "two", "openfaas-fn"]


def test_a_secret_needs_a_good_name_and_a_value(stoker: Shell) -> None:
    assert "secret name 'Bad_Name' is not allowed" in stoker("secret", "create", "Bad_Name", stdin=b"x").err
    assert "the secret's value is empty" in stoker("secret", "create", "fine").err


def test_namespaces_lists_them(stoker: Shell) -> None:
    assert stoker("namespaces").out.split() == ["Namespace", "openfaas-fn"]
    assert json.loads(stoker("namespaces", "--json").out) == ["openfaas-fn"]


def test_version_shows_the_gateway_when_it_can_be_reached(stoker: Shell, control: RunningControl) -> None:
    answer = json.loads(stoker("version", "--json").out)
    assert answer["gateway"]["uri"] == control.url
    assert answer["gateway"]["info"]["provider"]["provider"]
    assert control.url in stoker("version").out


def test_login_checks_the_password_before_it_is_stored(stoker: Shell, control: RunningControl, tmp_path: Path) -> None:
    elsewhere = {"STOKER_DATA_DIR": str(tmp_path / "nothing")}
    assert "stoker login" in stoker("list", **elsewhere).err
    assert stoker("login", "--password-stdin", stdin=b"wrong", **elsewhere).code == 1
    assert stoker("list", **elsewhere).code == 1

    assert stoker("login", "-s", stdin=PASSWORD.encode(), **elsewhere).code == 0
    stored = tmp_path / "home" / ".openfaas" / "config.yml"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert stoker("list", **elsewhere).code == 0

    assert stoker("logout", **elsewhere).code == 0
    assert stoker("list", **elsewhere).code == 1


def test_an_unreadable_password_file_is_named(stoker: Shell, tmp_path: Path) -> None:
    path = tmp_path / "data" / "password"
    path.unlink()
    path.mkdir()  # a mode would not stop root
    done = stoker("list")
    assert done.code == 1
    assert str(path) in done.err and "stoker login" in done.err and "Traceback" not in done.err


def test_on_a_terminal_a_bar_moves_and_the_log_is_shown_only_when_a_build_fails(
    project: Shell, control: RunningControl
) -> None:
    code, seen = on_a_terminal(project, "up", "--filter", "greet")
    assert code == 0 and "greet" in seen and "ok" in seen and "[greet]" not in seen
    project.file("stack.yml", STACK.replace("  greet:", "  broken:"))
    code, seen = on_a_terminal(project, "up", "--filter", "broken")
    assert code == 1 and "1 failed" in seen and "the tests of 'broken' failed" in seen


def on_a_terminal(stoker: Shell, *arguments: str) -> tuple[int, str]:
    """The exit code, and what stood on the terminal that standard error was."""
    terminal, other_end = os.openpty()
    command = [sys.executable, "-m", "stoker_cli", *arguments]
    environment = {**stoker.environment, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, cwd=stoker.folder, env=environment, stdout=subprocess.DEVNULL, stderr=other_end)
    os.close(other_end)
    seen = b""
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        try:
            while piece := screen.read(65536):
                seen += piece
        except OSError:
            pass  # Linux reports the end of a terminal as an input/output error
    return process.wait(30), seen.decode()


def test_revisions_are_listed_and_rolled_back_to(stoker: Shell, control: RunningControl) -> None:
    deployed(control, env_vars={"LEVEL": "debug"})
    control.run(control.provider.deploy(FunctionSpec("greet", "image:2", "openfaas-fn"), create=False))
    done = stoker("rollback", "greet")
    assert (done.code, done.out) == (0, "greet: revision 3, with the content of revision 1\n"), done.err
    shown = [line.split(maxsplit=2) for line in stoker("revisions", "greet").out.splitlines()]
    assert [number for number, *_ in shown] == ["Revision", "1", "2", "3"]
    assert [rest.split(maxsplit=1) for *_, rest in shown[1:3]] == [
        ["image:1", "created"],
        ["image:2", "envVars.LEVEL, image"],
    ]
    assert shown[3][2].split(maxsplit=2) == ["serving", "image:1", "rollback to 1: envVars.LEVEL, image"]
    found = json.loads(stoker("revisions", "greet", "--json").out)
    assert [one["number"] for one in found] == [1, 2, 3]


def test_a_rollback_says_what_is_wrong(stoker: Shell, control: RunningControl) -> None:
    control.provider.break_image("broken", "exited with 3")
    deployed(control)
    control.run(control.provider.deploy(FunctionSpec("greet", "broken", "openfaas-fn"), create=False))
    control.run(control.provider.deploy(FunctionSpec("greet", "image:3", "openfaas-fn"), create=False))
    done = stoker("rollback", "greet", "9")
    assert (done.code, done.out) == (1, "")
    assert "function 'greet' has no revision 9" in done.err and "there are 1, 2, 3" in done.err
    done = stoker("rollback", "greet", "2")
    assert done.code == 1 and "function 'greet': it did not start: exited with 3" in done.err
    assert stoker("rollback", "nobody").err.strip().endswith("deploy it first")
    assert stoker("revisions", "nobody").code == 1
    assert stoker("rollback", "greet", "0").code == 2
