"""Commands that ask a gateway and are not about one deploy: diff, ready, namespaces, stores, asynchronous calls, logs,
secrets in files, and what is shown of requests.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_control import PASSWORD, RunningControl, Shell, running_control, shell

from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import FunctionKey

GREET = FunctionKey("openfaas-fn", "greet")

STACK = """
provider: {name: openfaas}
functions:
  greet:
    image: example/greet:1
    fprocess: cat
    environment: {LEVEL: debug}
    labels: {team: blue}
    annotations: {note: hello}
    constraints: [disk=ssd]
    limits: {memory: 128Mi}
    scale: {min: 1, max: 2}
"""

STORE = {
    "version": "0.2.1",
    "functions": [
        {
            "title": "Figlet",
            "name": "figlet",
            "description": "Letters",
            "images": {"x86_64": "example/figlet:1", "arm64": "example/figlet:1-arm64"},
            "fprocess": "figlet",
            "environment": {"A": "1"},
            "labels": {"l": "v"},
            "readOnlyRootFilesystem": True,
        },
        {"title": "Old", "name": "old", "description": "", "image": "example/old:1"},
    ],
}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[RunningControl]:
    with running_control(tmp_path) as running:
        yield running


@pytest.fixture
def stoker(tmp_path: Path, control: RunningControl) -> Shell:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "password").write_text(PASSWORD)
    return shell(tmp_path, OPENFAAS_URL=control.url)


def deployed(control: RunningControl, name: str = "greet", **settings: object) -> None:
    control.run(control.provider.deploy(FunctionSpec(name, "image:1", "openfaas-fn", **settings), create=True))


def test_diff_after_a_deploy_finds_nothing_and_after_a_change_everything_that_changed(stoker: Shell) -> None:
    stoker.file("stack.yml", STACK)
    done = stoker("diff")
    assert (done.code, done.out.split()) == (1, ["greet:", "is", "not", "deployed"])
    assert stoker("deploy").code == 0
    done = stoker("diff")
    assert (done.code, done.out) == (0, "greet: no difference\n"), done.err

    changed = STACK.replace("greet:1", "greet:2").replace("debug", "info").replace("blue", "red").replace("cat", "tac")
    changed = changed.replace("128Mi", "0.125Gi").replace("note: hello", "other: hello").replace("ssd", "hdd")
    stoker.file("stack.yml", changed)
    done = stoker("diff")
    assert done.code == 1
    assert done.out.splitlines() == [
        "greet:",
        "  - image: example/greet:1",
        "  + image: example/greet:2",
        "  - fprocess: cat",
        "  + fprocess: tac",
        "  - env.LEVEL: 'debug'",
        "  + env.LEVEL: 'info'",
        "  - labels.team: 'blue'",
        "  + labels.team: 'red'",
        "  - annotations.note: 'hello'",
        "  + annotations.other: 'hello'",
        "  + constraints: disk=hdd",
        "  - constraints: disk=ssd",
        "  - limits.memory: '128Mi'",
        "  + limits.memory: '0.125Gi'",
    ]
    assert ["image", "example/greet:1", "example/greet:2"] in json.loads(stoker("diff", "--json").out)["greet"]


def test_diff_does_not_compare_the_image_that_the_gateway_has_built(stoker: Shell) -> None:
    stoker.file("greet/handler.py", "def handle(req):\n    return req\n")
    stoker.file("stack.yml", STACK.replace("image: example/greet:1", "lang: python3\n    handler: ./greet"))
    assert stoker("up").code == 0
    assert stoker("diff").code == 0
    assert stoker("deploy", "--env", "MORE=1", "--filter", "greet").code == 0
    assert "  - env.MORE: '1'" in stoker("diff").out


def test_ready_waits_for_the_gateway_and_for_a_function(stoker: Shell, control: RunningControl) -> None:
    assert stoker("ready").out == f"{control.url} is ready\n"
    done = stoker("ready", "greet", "--attempts", "2", "--interval", "10ms")
    assert done.code == 1 and "function 'greet' was not ready after 2 looks" in done.err
    assert "[1/2] function 'greet' is not ready: no such function" in done.err
    deployed(control)
    assert stoker("ready", "greet").out == "function 'greet' is ready\n"


def test_ready_gives_up_at_once_when_waiting_does_not_help(stoker: Shell, tmp_path: Path) -> None:
    done = stoker("ready", "greet", STOKER_DATA_DIR=str(tmp_path / "nothing"))
    assert done.code == 1 and "stoker login" in done.err and "[1/" not in done.err
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    done = stoker("ready", "-g", address, "--attempts", "2", "--interval", "0", "--quiet")
    assert done.code == 1 and done.err == f"stoker: {address} was not ready after 2 looks\n"


def test_namespaces_are_created_shown_changed_and_removed(stoker: Shell) -> None:
    done = stoker("namespace", "create", "staging", "--label", "team=blue", "--annotation", "owner=ada")
    assert done.code == 0, done.err
    assert stoker("namespace", "list").out.split() == ["Namespace", "openfaas-fn", "staging"]
    assert json.loads(stoker("namespaces", "--json").out) == ["openfaas-fn", "staging"]
    assert "team: blue" in stoker("namespace", "get", "staging").out
    assert stoker("namespace", "create", "staging").code == 1
    assert stoker("namespace", "update", "staging", "--label", "team=red").code == 0
    found = json.loads(stoker("namespace", "get", "staging", "--json").out)
    assert found["labels"]["team"] == "red" and "owner" not in found["annotations"]
    assert stoker("namespace", "remove", "staging").out == "staging: removed\n"
    for command in (("get",), ("update",), ("remove",)):
        done = stoker("namespace", *command, "staging")
        assert done.code == 1 and "namespace 'staging' not found" in done.err


@pytest.mark.parametrize("name", ["../x", "Bad_Name", "", "a/b", "a" * 64])
def test_a_namespace_needs_a_good_name(stoker: Shell, name: str) -> None:
    for command in ("create", "get", "remove"):
        done = stoker("namespace", command, name)
        assert done.code == 1 and "Traceback" not in done.err and "internal error" not in done.err
    assert stoker("namespace", "list").out.split() == ["Namespace", "openfaas-fn"]


def test_the_store_is_listed_described_and_deployed_from(stoker: Shell, control: RunningControl) -> None:
    path = str(stoker.file("functions.json", json.dumps(STORE)))
    assert stoker("store", "list", "--url", path).out.split() == ["Function", "Description", "figlet", "Letters", "old"]
    assert stoker("store", "ls", "-p", "arm64", OPENFAAS_STORE=path).out.split() == [
        *("Function", "Description", "figlet", "Letters")
    ]
    assert "example/figlet:1-arm64" in stoker("store", "inspect", "FIGLET", "-p", "arm64", "--url", path).out
    done = stoker("store", "deploy", "figlet", "--name", "banner", "-l", "more=1", "--url", path)
    assert done.code == 0, done.err
    status = control.provider.get(FunctionKey("openfaas-fn", "banner"))
    assert (status.image, status.env_process, status.env_vars) == ("example/figlet:1", "figlet", {"A": "1"})
    assert status.labels == {"l": "v", "more": "1"} and status.read_only_root_filesystem
    assert "has no image for arm64; it has: x86_64" in stoker("store", "deploy", "old", "-p", "arm64", "-u", path).err
    assert "the store has no function 'nope'" in stoker("store", "describe", "nope", "--url", path).err


def test_generate_prints_the_resources_that_a_cluster_takes(stoker: Shell) -> None:
    import yaml

    stoker.file("stack.yml", STACK + "    secrets: [api-key]\n    timeout: 5s\n  other: {image: other}\n")
    greet, other = yaml.safe_load_all(stoker("generate", "-n", "staging").out)
    assert greet == {
        "apiVersion": "openfaas.com/v1",
        "kind": "Function",
        "metadata": {"name": "greet", "namespace": "staging"},
        "spec": {
            "name": "greet",
            "image": "example/greet:1",
            "handler": "cat",
            "environment": {"LEVEL": "debug"},
            "labels": {"team": "blue", "com.openfaas.scale.min": "1", "com.openfaas.scale.max": "2"},
            "annotations": {"stoker.dev/timeout": "5s", "note": "hello"},
            "secrets": ["api-key"],
            "constraints": ["disk=ssd"],
            "limits": {"memory": "128Mi"},
        },
    }
    assert other["spec"] == {"name": "other", "image": "other:latest"}
    flags = ("--api", "openfaas.com/v1alpha2", "--crd-group", "functions.example.org")
    (older, _) = yaml.safe_load_all(stoker("generate", "-n", "staging", *flags).out)
    assert older == greet | {"apiVersion": "functions.example.org/v1alpha2"}
    knative = next(yaml.safe_load_all(stoker("generate", "--api", "serving.knative.dev/v1").out))
    (container,) = knative["spec"]["template"]["spec"]["containers"]
    assert knative["kind"] == "Service" and knative["metadata"]["namespace"] == "openfaas-fn"
    assert container["env"] == [{"name": "fprocess", "value": "cat"}, {"name": "LEVEL", "value": "debug"}]
    assert container["volumeMounts"][0]["mountPath"] == "/var/openfaas/secrets/api-key"
    path = str(stoker.file("functions.json", json.dumps(STORE)))
    (figlet,) = yaml.safe_load_all(stoker("generate", "--from-store", "figlet", "--arch", "arm64", "-u", path).out)
    assert (figlet["spec"]["image"], figlet["spec"]["handler"]) == ("example/figlet:1-arm64", "figlet")


def test_generate_needs_an_image(stoker: Shell) -> None:
    stoker.file("stack.yml", STACK.replace("image: example/greet:1", "lang: python3"))
    assert "function 'greet': has no image, which a cluster needs" in stoker("generate").err


def test_an_asynchronous_call_is_queued_and_a_signature_is_that_of_the_body(
    stoker: Shell, control: RunningControl
) -> None:
    done = stoker("invoke", "greet", "--async", "-n", "dev", stdin=b"later")
    assert (done.code, done.out, done.err) == (0, "", "Function submitted asynchronously, call call-1.\n")
    assert control.invocations[-1][:2] == ("POST", "/async-function/greet.dev")
    done = stoker("invoke", "greet", "--sign", "X-Hub-Signature-256", "--key", "k", stdin=b"body" * 500_000)
    assert done.code == 0, done.err
    expected = hmac.new(b"k", b"body" * 500_000, hashlib.sha256).hexdigest()
    assert control.invocations[-1][2]["X-Hub-Signature-256"] == f"sha256={expected}"
    assert stoker("invoke", "greet", "--sign", "X", STOKER_SIGN_KEY="k").code == 0
    for flags in (("--sign", "X"), ("--key", "k")):
        assert stoker("invoke", "greet", *flags).code == 2


def test_describe_shows_on_demand_what_is_not_set(stoker: Shell, control: RunningControl) -> None:
    deployed(control)
    assert "<none>" not in stoker("describe", "greet").out
    assert "Secrets:             <none>" in stoker("describe", "greet", "-v").out
    assert stoker("list", "-q", "--sort", "creation").out == "greet\n"


def test_logs_come_in_the_form_that_is_asked_for(stoker: Shell, control: RunningControl) -> None:
    deployed(control)
    control.run(control.provider.print(GREET, 'say "hi"\n', instance="greet-0", at="2026-01-31T12:00:00Z"))
    assert stoker("logs", "greet", "--name=false", "--time-format", "%H:%M").out == '12:00 say "hi"\n'
    assert stoker("logs", "greet", "-o", "keyvalue").out == (
        'timestamp="2026-01-31T12:00:00Z" name="greet" instance="greet-0" text="say \\"hi\\""\n'
    )
    assert json.loads(stoker("logs", "greet", "-o", "json").out)["text"] == 'say "hi"\n'
    assert stoker("logs", "greet", "--lines", "-5").code == 2


def test_secrets_are_made_up_and_applied_from_a_folder(stoker: Shell, control: RunningControl) -> None:
    assert stoker("secret", "generate", "one", "--length", "24").out == ".secrets/one written\n"
    value = (stoker.folder / ".secrets/one").read_text()
    assert len(value) == 32 and (stoker.folder / ".secrets/one").stat().st_mode & 0o777 == 0o600
    assert "exists already" in stoker("secret", "generate", "one").err
    assert len(stoker("secret", "generate").out.strip()) == 43
    stoker.file(".secrets/two", "2\n")
    assert stoker("secret", "apply").out.splitlines() == ["one: created", "two: created"]
    assert stoker("secret", "apply", "two").out == "two: updated\n"
    assert stoker("secret", "ls").out.split() == ["Name", "Namespace", "one", "openfaas-fn", "two", "openfaas-fn"]


def test_a_folder_of_secrets_is_looked_at_before_anything_is_sent(stoker: Shell) -> None:
    assert "cannot be read" in stoker("secret", "apply").err
    stoker.file(".secrets/good", "x")
    bad = stoker.file(".secrets/Bad_Name", "x")
    assert "secret name 'Bad_Name' is not allowed" in stoker("secret", "apply").err
    bad.unlink()
    (stoker.folder / ".secrets/linked").symlink_to("/etc/passwd")
    assert "is not a file" in stoker("secret", "apply").err
    (stoker.folder / ".secrets/linked").unlink()
    stoker.file(".secrets/empty", "")
    assert "empty is empty" in stoker("secret", "apply").err
    assert stoker("secret", "generate", "../up").code == 1 and not (stoker.folder / "up").exists()
    assert "too large for a secret" in stoker("secret", "create", "big", "--from-file", "/dev/zero").err
    assert "too large for a secret" in stoker("secret", "create", "big", stdin=b"x" * (2 << 20)).err
    assert json.loads(stoker("secret", "list", "--json").out) == []


@pytest.mark.parametrize("switch", [{"FAAS_DEBUG": "1"}, {"OPENFAAS_DUMP_HTTP": "true"}])
def test_requests_are_shown_on_demand_without_what_is_secret(stoker: Shell, switch: dict[str, str]) -> None:
    done = stoker("secret", "create", "one", "--from-literal", "hidden-value", **switch)
    assert done.code == 0
    assert "> POST http://" in done.err and "> Authorization: (not shown)" in done.err and "< 202" in done.err
    token = subprocess.run(["base64"], input=f"admin:{PASSWORD}".encode(), capture_output=True, check=True).stdout
    for secret in ("hidden-value", PASSWORD, token.decode().strip()):
        assert secret not in done.err
    assert "> POST" not in stoker("list").err


def test_a_token_counts_where_no_login_is_stored(stoker: Shell, tmp_path: Path) -> None:
    elsewhere = {"STOKER_DATA_DIR": str(tmp_path / "nothing"), "FAAS_DEBUG": "1"}
    done = stoker("list", "--token", "t0ken", **elsewhere)
    assert done.code == 1 and "> Authorization: (not shown)" in done.err and "t0ken" not in done.err
    assert "Authorization" not in stoker("list", **elsewhere).err


def test_several_stack_files_are_deployed_together(stoker: Shell, control: RunningControl) -> None:
    stoker.file("a/stack.yml", "provider: {name: openfaas}\nfunctions: {a: {lang: python3, handler: ./src}}\n")
    stoker.file("a/src/handler.py", "def handle(req):\n    return req\n")
    stoker.file("b.yml", "provider: {name: openfaas}\nfunctions: {b: {image: b:1}}\n")
    done = stoker("up", "-f", "a/stack.yml", "-f", "b.yml")
    assert done.code == 0, done.err
    assert [status.name for status in control.provider.list("openfaas-fn")] == ["a", "b"]
    done = stoker("up", "-f", "b.yml", "-f", "b.yml")
    assert done.code == 2 and "function 'b' stands in b.yml and in b.yml" in done.err
    assert "only http:// and https:// addresses can" in stoker("up", "-f", "ftp://example.org/stack.yml").err


def test_up_looks_at_every_handler_before_it_builds_the_first(stoker: Shell, control: RunningControl) -> None:
    stoker.file("a/handler.py", "def handle(req):\n    return req\n")
    functions = "{a: {lang: python3, handler: ./a}, b: {lang: python3, handler: ./missing}}"
    stoker.file("stack.yml", f"provider: {{name: openfaas}}\nfunctions: {functions}\n")
    done = stoker("up")
    assert done.code == 1 and "functions.b.handler: there is no folder './missing'" in done.err
    assert control.provider.list("openfaas-fn") == []


def test_up_in_parallel_builds_everything_and_then_deploys(stoker: Shell, control: RunningControl) -> None:
    for name in ("a", "b", "c"):
        stoker.file(f"{name}/handler.py", f"def handle(req):\n    return {name!r}\n")
    functions = ", ".join(f"{name}: {{lang: python3, handler: ./{name}}}" for name in ("a", "b", "c"))
    stoker.file("stack.yml", f"provider: {{name: openfaas}}\nfunctions: {{{functions}}}\n")
    done = stoker("up", "--parallel", "3", "--quiet")
    assert done.code == 0, done.err
    images = [status.image for status in control.provider.list("openfaas-fn")]
    assert [image.partition("@")[0] for image in images] == [f"stoker.local/{name}" for name in ("a", "b", "c")]
    assert stoker("build", "--parallel", "2").out.split() == images


@pytest.mark.slow
def test_up_with_watch_deploys_again_after_every_change_also_of_a_broken_stack(
    stoker: Shell, control: RunningControl
) -> None:
    stoker.file("greet/handler.py", "def handle(req):\n    return req\n")
    stack = "provider: {name: openfaas}\nfunctions: {greet: {lang: python3, handler: ./greet}}\n"
    stoker.file("stack.yml", stack)
    command = [sys.executable, "-m", "stoker_cli", "up", "--watch"]
    with subprocess.Popen(
        command, cwd=stoker.folder, env=dict(stoker.environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            first = until_watching(process)
            assert f"greet: {control.url}/function/greet" in first
            image = control.provider.get(GREET).image
            stoker.file("greet/handler.py", "def handle(req):\n    return 'changed'\n")
            assert "changed: " in until_watching(process)
            assert control.provider.get(GREET).image != image
            stoker.file("stack.yml", "functions: [")
            assert "is not YAML" in until_watching(process)
            stoker.file("stack.yml", stack.replace("./greet}", "./greet, labels: {a: b}}"))
            until_watching(process)
            assert control.provider.get(GREET).labels == {"a": "b"}
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130


def until_watching(process: subprocess.Popen[bytes]) -> str:
    """What is printed until the next change is waited for."""
    assert process.stdout is not None
    lines = []
    while not (line := process.stdout.readline().decode()).startswith("watching "):
        assert line, "".join(lines)
        lines.append(line)
    return "".join(lines)


def test_registry_login_writes_what_docker_reads(stoker: Shell) -> None:
    done = stoker("registry-login", "--server", "ghcr.io", "-u", "me", "--password-stdin", stdin=b"pass\n")
    path = stoker.folder / "credentials/config.json"
    assert done.code == 0 and path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {"auths": {"ghcr.io": {"auth": "bWU6cGFzcw=="}}}
    assert stoker("registry-login", "--ecr", "--account-id", "123", "--region", "eu-west-1").code == 0
    assert json.loads(path.read_text()) == {"credHelpers": {"123.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login"}}
    for flags in ((), ("-u", "me"), ("--ecr",), ("-u", "me", "-p", "x", "-s"), ("--ecr", "--account-id", "1")):
        assert stoker("registry-login", *flags).code == 2


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_the_command(stoker: Shell, name: str) -> None:
    assert "_STOKER_COMPLETE" in stoker("completion", name).out
    assert stoker("completion", "--shell", name).out == stoker("completion", name).out
    assert stoker("completion").code == 2


def test_a_shell_gets_the_commands_that_begin_so(stoker: Shell) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from stoker_cli.main import main; main()"],
        env={**stoker.environment, "_STOKER_COMPLETE": "bash_complete", "COMP_WORDS": "stoker nam", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,namespace", "plain,namespaces"], done.stderr


def test_version_of_the_client_asks_nobody_and_imports_little(stoker: Shell) -> None:
    done = stoker("version", "--client-only", OPENFAAS_URL="http://127.0.0.1:1")
    assert done.code == 0 and "Gateway" not in done.out
    assert list(json.loads(stoker("version", "--client-only", "--json").out)) == ["cli"]
    script = "import sys; from stoker_cli.main import run; from stoker_cli.surroundings import Surroundings; "
    script += "run(['version', '--client-only'], Surroundings.of_process()); "
    script += "print([name for name in ('urllib3', 'yaml', 'rich', 'msgspec', 'watchfiles') if name in sys.modules])"
    environment = {**stoker.environment, "PATH": os.environ["PATH"]}
    done_ = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done_.stdout.splitlines()[-1] == "[]"
