"""The command, as a user types it, against a real platform: from `new` to `remove`, and over HTTPS with curl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from running_platform import REPOSITORY, Platform, wait_for

EXAMPLES = REPOSITORY / "stack-examples"
HEAD = "provider:\n  name: openfaas\nfunctions:\n"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Runs `stoker` in a folder, on the machine of a platform, whose password it finds by itself."""

    platform: Platform
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return self.platform.environment | {"OPENFAAS_URL": self.platform.http_url}

    def __call__(self, *arguments: str, stdin: str = "") -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "stoker_cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=60,
            check=False,
        )
        assert "\nTraceback" not in f"\n{done.stderr}", done.stderr  # that of a function is printed behind its name
        return Ran(done.returncode, done.stdout, done.stderr)

    def done(self, *arguments: str, stdin: str = "") -> Ran:
        """Run what must succeed."""
        ran = self(*arguments, stdin=stdin)
        assert ran.code == 0, ran
        return ran

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "stoker_cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )


@pytest.fixture
def stoker(platform: Platform, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(platform, tmp_path)
    before = {status.name for status in platform.client.functions()}
    yield shell
    for status in platform.client.functions():
        if status.name not in before:
            platform.client.remove(status.name)


def example(name: str, folder: Path) -> Path:
    """A copy of an example whose stack names no gateway, so that OPENFAAS_URL does."""
    copy = shutil.copytree(EXAMPLES / name, folder / name)
    stack = copy / "stack.yml"
    lines = [line for line in stack.read_text().splitlines() if "gateway:" not in line]
    stack.write_text("\n".join(lines) + "\n")
    return stack


@pytest.mark.parametrize("lang", ["python3", "python3-http", "python"])
@pytest.mark.slow
def test_from_new_to_remove(stoker: Shell, lang: str) -> None:
    name = f"greet-{lang}"
    stoker.done("new", name, "--lang", lang)
    up = stoker.done("up", "-f", "stack.yml")
    url = f"{stoker.platform.http_url}/function/{name}"
    assert url in up.out
    assert name in stoker.done("list").out
    (listed,) = [one for one in stoker.done("list", "--json").json() if one["name"] == name]
    assert listed["replicas"] == 1 and listed["image"].startswith(f"stoker.local/{name}@sha256:")
    said = stoker.done("invoke", name, stdin="hello").out
    assert said and stoker.platform.call(name, b"hello").text == said
    described = stoker.done("describe", name)
    assert "Ready" in described.out and url in described.out
    assert stoker.done("describe", name, "--json").json()["availableReplicas"] == 1
    stoker.done("scale", name, "3")
    wait_for(lambda: len(stoker.platform.replicas(name)) == 3, "three replicas")
    stoker.done("remove", name)
    gone = stoker("describe", name)
    assert gone.code == 1 and name in gone.err and len(gone.err.splitlines()) <= 2
    assert stoker("remove", name).code == 1


def test_the_kubecon_example(stoker: Shell) -> None:
    stack = example("kubecon", stoker.folder)
    stoker.done("up", "-f", str(stack))
    assert stoker.done("invoke", "kubecon", stdin="hello").out.strip() == "You said: hello"
    assert stoker.done("invoke", "kubecon").out.strip() == "You said: pass a value to the function"
    again = stoker.done("up", "-f", str(stack))
    assert stoker.platform.condition("kubecon").revision == 1, again
    stoker.done("remove", "-f", str(stack))
    assert stoker.platform.call("kubecon").status == 404


@pytest.mark.slow
def test_the_stream_example_comes_event_by_event(stoker: Shell) -> None:
    stoker.done("up", "-f", str(example("stream", stoker.folder)))
    process = stoker.start("invoke", "stream", "--query", "count=3")
    assert process.stdout is not None
    seen = [(line, time.monotonic()) for line in process.stdout if line.startswith("data:")]
    assert process.wait(10) == 0
    assert [line.strip() for line, _ in seen] == ["data: tick 0", "data: tick 1", "data: tick 2"]
    assert seen[1][1] - seen[0][1] > 0.7 and seen[2][1] - seen[1][1] > 0.7


def test_logs_are_shown_and_followed(stoker: Shell) -> None:
    stoker.platform.deploy("talks", "def handle(req):\n    print('heard', req)\n    return 'ok'\n")
    stoker.done("invoke", "talks", "-H", "X-Call-Id: talk-1", stdin="one")
    assert stoker.done("logs", "talks").out.endswith("heard one\n")
    (line,) = map(json.loads, stoker.done("logs", "talks", "--json").out.splitlines())
    assert (line["text"], line["call"], line["name"]) == ("heard one\n", "talk-1", "talks")
    following = stoker.start("logs", "talks", "--follow")
    try:
        assert following.stdout is not None
        assert "heard one" in following.stdout.readline()
        for word in ("two", "three"):
            stoker.platform.call("talks", word.encode())
            assert f"heard {word}" in following.stdout.readline()
    finally:
        following.terminate()
        following.communicate(timeout=10)
    assert stoker.done("logs", "talks", "--lines", "1").out.endswith("heard three\n")
    assert "heard" not in stoker.done("logs", "talks", "--since-time", "2999-01-01T00:00:00Z").out


def test_what_fails_is_exit_code_1_with_a_reason_and_wrong_usage_is_2(stoker: Shell) -> None:
    (stoker.folder / "bad").mkdir()
    (stoker.folder / "bad" / "handler.py").write_text("def handle(req):\n    return 1\nraise ValueError('no luck')\n")
    (stoker.folder / "stack.yml").write_text(f"{HEAD}  bad:\n    lang: python3\n    handler: ./bad\n")
    failed = stoker("up")
    assert failed.code == 1 and "ValueError: no luck" in failed.err
    assert stoker("invoke", "no-such-function").code == 1
    assert stoker("up", "--no-such-flag").code == 2
    assert stoker("scale", "bad", "many").code == 2
    assert stoker("describe").code == 2
    broken = stoker.folder / "broken.yml"
    broken.write_text(f"{HEAD}  x:\n    langg: python3\n    handler: ./bad\n")
    wrong = stoker("up", "-f", str(broken))
    assert wrong.code == 1 and "langg" in wrong.err and "broken.yml" in wrong.err


def test_secrets_come_from_the_command_to_the_function(stoker: Shell) -> None:
    stoker.done("secret", "create", "cli-secret", "--from-literal", "swordfish")
    stoker.platform.deploy(
        "knows", "def handle(event, context):\n    return context.secret('cli-secret')\n", secrets=["cli-secret"]
    )
    assert stoker.done("invoke", "knows").out == "swordfish"
    listed = stoker.done("secret", "list")
    assert "cli-secret" in listed.out and "swordfish" not in listed.out
    stoker.platform.client.remove("knows")
    stoker.done("secret", "remove", "cli-secret")
    assert "cli-secret" not in stoker.done("secret", "list").out
    assert not list(stoker.platform.data.secrets.rglob("cli-secret*"))


def test_a_function_is_called_over_https_with_the_printed_ca(platform: Platform, stoker: Shell) -> None:
    platform.deploy("safe", "def handle(req):\n    return 'safe: ' + req\n")
    ca = stoker.done("serve", "--print-ca").out.strip()
    assert ca == str(platform.data.ca_certificate)
    for host in ("localhost", "127.0.0.1"):
        url = f"https://{host}:{platform.https[1]}/function/safe"
        done = curl("--cacert", ca, url, "-d", "hello")
        assert (done.returncode, done.stdout) == (0, "safe: hello"), done
        assert curl(url, "-d", "hello").returncode == 60  # curl: the certificate is not trusted


def test_the_command_talks_to_https_too(platform: Platform, stoker: Shell) -> None:
    platform.deploy("safely", "def handle(req):\n    return 'safely'\n")
    assert "safely" in stoker.done("list", "--gateway", platform.https_url).out
    assert stoker.done("invoke", "safely", "--gateway", platform.https_url).out == "safely"


def test_a_command_without_the_password_is_told_to_log_in(stoker: Shell) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stoker_cli", "list"],
        env=stoker.environment | {"STOKER_DATA_DIR": str(stoker.folder / "elsewhere")},
        cwd=stoker.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1 and "stoker login" in done.stderr


def test_a_platform_that_does_not_run_is_named(stoker: Shell) -> None:
    ran = stoker("list", "--gateway", "http://127.0.0.1:1")
    assert ran.code == 1 and "http://127.0.0.1:1" in ran.err and "stoker serve" in ran.err


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith(("_proxy", "bundle"))}
    environment.pop("SSL_CERT_FILE", None)
    return subprocess.run(
        ["curl", "--silent", "--max-time", "20", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.slow
def test_a_stack_with_shared_files_and_settings_of_ours_runs_and_shows_no_difference(stoker: Shell) -> None:
    (stoker.folder / "full").mkdir()
    (stoker.folder / "shared").mkdir()
    (stoker.folder / "shared/text.txt").write_text("from the project")
    (stoker.folder / "full/handler.py").write_text(
        "from pathlib import Path\n\n\n"
        "def handle(req):\n    return (Path(__file__).parent / 'shared/text.txt').read_text()\n"
    )
    settings = "timeout: 30s, connections: 60, scale: {min: 2, max: 3}, schedule: '@hourly', routes: /x, retries: 2"
    (stoker.folder / "stack.yml").write_text(
        f"{HEAD}  full: {{lang: python3, handler: ./full, image: full, {settings}}}\n"
        "configuration: {copy: [shared]}\n"
    )
    stoker.done("up")
    assert stoker.done("invoke", "full").out == "from the project"
    wait_for(lambda: stoker.done("describe", "full", "--json").json()["availableReplicas"] == 2, "two replicas")
    assert stoker.done("diff").out == "full: no difference\n"
    assert stoker.done("ready", "full").out == "function 'full' is ready\n"
    annotations = stoker.done("describe", "full", "--json").json()["annotations"]
    assert json.loads(annotations["stoker.dev/schedule"]) == [{"cron": "@hourly"}]


@pytest.mark.slow
def test_a_change_under_watch_is_answered_by_the_new_code(stoker: Shell) -> None:
    stoker.done("new", "watched", "--lang", "python3")
    (stoker.folder / "watched/handler_test.py").unlink()
    with stoker.start("up", "--watch") as process:
        try:
            wait_for(lambda: stoker("ready", "watched", "--attempts", "1", "--quiet").code == 0, "the first code")
            (stoker.folder / "watched/handler.py").write_text("def handle(req):\n    return 'new code'\n")
            wait_for(lambda: stoker("invoke", "watched").out == "new code", "the new code")
            (stoker.folder / "watched/handler.py").write_text("def handle(req:\n")
            (stoker.folder / "watched/handler.py").write_text("def handle(req):\n    return 'newer code'\n")
            wait_for(lambda: stoker("invoke", "watched").out == "newer code", "the newer code")
        finally:
            process.terminate()
            process.communicate(timeout=20)


@pytest.mark.slow
def test_async_calls_are_waited_for_listed_shown_replayed_and_purged(stoker: Shell) -> None:
    handler = (
        "def handle(event, context):\n"
        "    wanted = int(event.headers.get('X-Status', '200'))\n"
        "    return {'statusCode': wanted, 'body': 'no luck' if wanted > 299 else 'fine'}\n"
    )
    retries = {"stoker.dev/retries": '{"max":1,"backoff":"10ms"}'}
    stoker.platform.deploy("later", {"handler.py": handler}, lang="python3-http", annotations=retries)
    waited = stoker.done("invoke", "later", "--async", "--wait", stdin="x")
    id = waited.err.split()[4].rstrip(".")
    assert waited.err.splitlines()[-1] == f"call {id} is done, status 200"
    assert stoker.done("calls", "show", id, "--json").json()["state"] == "done"

    refused = stoker("invoke", "later", "--async", "--wait", "-H", "X-Status: 503")
    assert refused.code == 1 and "is dead" in refused.err and "status 503" in refused.err
    listed = stoker.done("calls", "list", "later", "--json").json()
    assert [(call["state"], call["status"]) for call in listed] == [("done", 200), ("dead", 503)]
    assert "Attempt 2: " in stoker.done("calls", "show", listed[1]["id"]).out
    new = stoker.done("calls", "replay", listed[1]["id"], "-H", "X-Status: 200").out.split()[-1]
    wait_for(lambda: stoker.done("calls", "show", new, "--json").json()["state"] == "done", "the replayed call")
    assert stoker.done("calls", "purge", "later").out == "later: 0 calls cancelled\n"
    assert "has ended already" in stoker("calls", "cancel", id).err
    stoker.done("remove", "later")
