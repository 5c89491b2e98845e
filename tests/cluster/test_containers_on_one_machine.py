"""`stoker serve` on one machine with a real Docker Engine: functions whose image is a container's."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from registry import PASSWORD, USER, RunningRegistry
from running_cluster import Cluster
from running_platform import Platform, wait_for

from stoker_sdk.errors import BadInput, StokerError, Unavailable
from stoker_sdk.function import Resources
from stoker_sdk.messages import Secret

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ECHO = """
import os, socket, time, urllib.request

def handle(event, context):
    text = event.body.decode()
    match event.path:
        case "/secret":
            return open("/var/openfaas/secrets/" + text).read()
        case "/environment":
            return "\\n".join(f"{name}={value}" for name, value in os.environ.items())
        case "/status":
            return open("/proc/self/status").read()
        case "/write":
            with open(text, "w") as file:
                file.write("x")
            return "written"
        case "/get":
            try:
                return urllib.request.urlopen(text, timeout=2).read()
            except OSError as error:
                return f"no answer: {error}"
        case "/slow":
            time.sleep(float(text))
        case "/fill":
            return len(bytes(int(text)) or b"x" * int(text))
        case "/grow":
            kept = bytearray()
            while True:
                kept += b"x" * 1_000_000
        case "/print":
            print(text)
        case "/end":
            os._exit(int(text))
    return "echo " + text
"""
VERSION = "def handle(req):\n    return {!r}\n"
BROKEN = "raise ImportError('broken on purpose')\n"


@pytest.fixture(scope="module")
def echo(cluster: Cluster) -> str:
    return cluster.function("machine-echo", ECHO)


@pytest.fixture
def make(cluster: Cluster, make_platform: Callable[..., Platform]) -> Callable[..., Platform]:
    def start(*flags: str, **variables: str) -> Platform:
        where = ("--docker-host", cluster.environment["DOCKER_HOST"], "--no-async")
        return make_platform(flags=(*where, *flags), **variables)

    return start


@pytest.fixture(scope="module")
def shared(cluster: Cluster, platform: Platform) -> Iterator[Platform]:
    """A platform for tests that kill nothing: use names of your own."""
    one = Platform(like=platform, DOCKER_HOST=cluster.environment["DOCKER_HOST"], flags=("--no-async",))
    try:
        yield one.start()
    finally:
        print(one.log)
        one.delete()


def containers(cluster: Cluster, name: str, *, all: bool = False) -> list[str]:
    return cluster.containers(f"stoker.dev/function={name}", all=all)


def inspected(cluster: Cluster, name: str) -> Any:
    (id,) = containers(cluster, name)
    return json.loads(cluster.docker("inspect", id))[0]


# What a container is


def test_a_container_answers_as_its_function_and_may_do_little(cluster: Cluster, shared: Platform, echo: str) -> None:
    shared.deploy_image("confined", echo)
    assert shared.call("confined", b"hi").text == "echo hi"
    status = dict(
        line.split(":\t") for line in shared.call("confined", path="/status").text.splitlines() if "\t" in line
    )
    assert int(status["CapEff"], 16) == 0 and int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert int(status["Uid"].split()[0]) > 1000
    host = inspected(cluster, "confined")["HostConfig"]
    assert not host["PortBindings"] and not host["Privileged"]
    assert shared.status("confined").image == echo


def test_each_function_has_a_user_of_its_own(shared: Platform, echo: str) -> None:
    users = set()
    for name in ("user-a", "user-b"):
        shared.deploy_image(name, echo)
        users.add(next(line for line in shared.call(name, path="/status").text.splitlines() if line.startswith("Uid")))
    assert len(users) == 2


def test_secrets_are_files_and_in_no_environment(cluster: Cluster, shared: Platform, echo: str) -> None:
    shared.client.create_secret(Secret("container-key", value="s3cr3t value"))
    shared.deploy_image("keyed", echo, secrets=["container-key"])
    assert shared.call("keyed", b"container-key", path="/secret").text == "s3cr3t value"
    assert "s3cr3t" not in shared.call("keyed", path="/environment").text
    assert "s3cr3t" not in json.dumps(inspected(cluster, "keyed"))
    assert shared.call("keyed", b"/var/openfaas/secrets/container-key", path="/write").status == 500


def test_a_read_only_root_is_one_and_tmp_is_not(shared: Platform, echo: str) -> None:
    shared.deploy_image("frozen", echo, read_only_root_filesystem=True)
    assert shared.call("frozen", b"/tmp/x", path="/write").text == "written"
    assert shared.call("frozen", b"/var/tmp/x", path="/write").status == 500


def test_containers_do_not_reach_one_another(cluster: Cluster, shared: Platform, echo: str) -> None:
    for name in ("left", "right"):
        shared.deploy_image(name, echo)
    (right,) = shared.condition("right").instances
    address = cluster.container_address(right.id)
    assert shared.call("right", b"http://127.0.0.1:8080/_/health", path="/get").text == "OK"
    assert "timed out" in shared.call("left", f"http://{address}:8080/_/health".encode(), path="/get").text


@pytest.mark.parametrize("memory", ["100000Gi", "1000000000000Gi"])
def test_limits_beyond_the_machine_are_those_of_the_machine(shared: Platform, echo: str, memory: str) -> None:
    shared.deploy_image("large", echo, limits=Resources(memory=memory, cpu="10000"))
    assert shared.call("large", b"x").text == "echo x"


def test_a_limit_that_the_engine_refuses_is_told_in_its_words(cluster: Cluster, shared: Platform, echo: str) -> None:
    shared.deploy_image("tiny", echo, limits=Resources(memory="1k"), wait=False)
    failed = shared.wait_failed("tiny")
    assert "memory" in failed.message.lower() and failed.code == "cannot-start"
    assert containers(cluster, "tiny", all=True) == []


def test_out_of_memory_is_told_to_the_caller_and_in_the_status(shared: Platform, echo: str) -> None:
    shared.deploy_image("greedy", echo, limits=Resources(memory="96Mi"))
    answer = shared.call("greedy", path="/grow")
    assert answer.status == 502 and "out-of-memory" in answer.headers["x-stoker-error"]
    assert "96Mi" in answer.text


# Rollouts


def test_a_function_goes_from_a_process_to_a_container_and_back_without_a_gap(
    cluster: Cluster, shared: Platform, echo: str
) -> None:
    image = shared.build("mover", VERSION.format("process"))
    shared.deploy_image("mover", image)
    other = cluster.function("machine-mover", VERSION.format("container"))
    shared.deploy_image("mover", other, wait=False)
    assert _answers_until(shared, "container") <= {"process", "container"}
    shared.client.rollback("mover", 1)
    assert _answers_until(shared, "process") <= {"process", "container"}
    wait_for(lambda: not containers(cluster, "mover", all=True), "the end of its container")
    assert [one.image for one in shared.client.revisions("mover")] == [image, other, image]


def _answers_until(platform: Platform, wanted: str) -> set[str]:
    answers: set[str] = set()

    def is_there() -> bool:
        answers.add(platform.call("mover").text)
        return wanted in answers

    wait_for(is_there, f"the answer {wanted!r}", 60)
    return answers


def test_a_tag_that_moved_rolls_out_and_one_that_did_not_starts_nothing(cluster: Cluster, shared: Platform) -> None:
    one, two = (cluster.function(f"machine-moving-{text}", VERSION.format(text)) for text in ("one", "two"))
    moving = cluster.tag(one, "machine-moving:latest")
    first = shared.deploy_image("moving", moving)
    before = containers(cluster, "moving")
    assert shared.deploy_image("moving", moving) == first
    assert containers(cluster, "moving") == before
    cluster.tag(two, "machine-moving:latest")
    assert shared.deploy_image("moving", moving) > first
    wait_for(lambda: shared.call("moving").text == "two", "the new image")
    (last,) = [one for one in shared.client.revisions("moving") if one.serving]
    assert last.digest.startswith("sha256:") and last.image == moving


def test_an_image_that_was_built_here_needs_no_registry(cluster: Cluster, shared: Platform, echo: str) -> None:
    (Path(shared.folder) / "Dockerfile").write_text(f"FROM {echo}\nENV MARK=mine\n")
    cluster.docker(
        "build", "-q", "-t", "stoker-test-built:1", "-f", str(shared.folder / "Dockerfile"), str(shared.folder)
    )
    try:
        shared.deploy_image("built", "stoker-test-built:1")
        assert "MARK=mine" in shared.call("built", path="/environment").text
    finally:
        cluster.docker("rmi", "-f", "stoker-test-built:1")


def test_a_version_that_cannot_start_leaves_the_old_one_and_says_what_it_printed(
    cluster: Cluster, shared: Platform, echo: str
) -> None:
    shared.deploy_image("steady", echo)
    shared.deploy_image("steady", cluster.function("machine-broken", BROKEN), wait=False)
    failed = shared.wait_failed("steady")
    assert "broken on purpose" in failed.message + "".join(failed.output)
    assert "exit code 1" in failed.message
    assert shared.call("steady", b"x").text == "echo x"
    wait_for(lambda: len(containers(cluster, "steady", all=True)) == 1, "the end of the broken one")


def test_an_image_that_does_not_exist_is_refused_at_the_deploy(shared: Platform, cluster: Cluster) -> None:
    with pytest.raises(BadInput, match="nobody-has-this"):
        shared.deploy_image("nothing", f"{cluster.registry}/nobody-has-this:1")
    with pytest.raises(BadInput, match="not an image's name"):
        shared.deploy_image("nothing", "UPPER/../..:x")
    with pytest.raises(Unavailable, match=r"localhost:1.*--unpinned"):
        shared.deploy_image("nothing", "localhost:1/x/y:1")
    assert all(status.name != "nothing" for status in shared.client.functions())


def test_a_private_registry_takes_the_login_of_a_secret(
    cluster: Cluster, shared: Platform, echo: str, tmp_path: Path
) -> None:
    registry = RunningRegistry(tmp_path, password=True)
    try:
        image = f"{registry.address}/private/echo:1"
        cluster.push_as(echo, image, USER, PASSWORD)
        cluster.docker("rmi", image)
        with pytest.raises(BadInput, match="list a secret with a"):
            shared.deploy_image("private", image)
        for name, password in (("wrong", "no"), ("right", PASSWORD)):
            config = {"auths": {registry.address: {"username": USER, "password": password}}}
            shared.client.create_secret(Secret(name, value=json.dumps(config)))
        began = time.monotonic()
        with pytest.raises(BadInput, match=f"{registry.address} refuses the credentials of secret 'wrong'") as caught:
            shared.deploy_image("private", image, secrets=["wrong"])
        assert time.monotonic() - began < 10 and "no" not in str(caught.value).split()
        shared.deploy_image("private", image, secrets=["right"])
        assert shared.call("private", b"x").text == "echo x"
        assert shared.call("private", b"right", path="/secret").status == 500  # no file for the function
    finally:
        registry.stop()


def test_scaling_to_zero_and_back_by_a_call(cluster: Cluster, shared: Platform, echo: str) -> None:
    shared.deploy_image("sleeper", echo)
    shared.scale("sleeper", 2)
    assert len(containers(cluster, "sleeper")) == 2
    shared.client.scale("sleeper", 0)
    wait_for(lambda: not containers(cluster, "sleeper", all=True), "the end of its containers")
    assert shared.call("sleeper", b"up").text == "echo up"


def test_a_call_that_runs_is_not_cut_by_an_update(shared: Platform, echo: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    shared.deploy_image("patient", echo)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(shared.call, "patient", b"4", path="/slow")
        time.sleep(0.5)  # it runs
        shared.deploy_image("patient", echo, env_vars={"A": "2"})
        assert slow.result().text == "echo 4"


def test_what_it_prints_is_its_log(shared: Platform, echo: str) -> None:
    shared.deploy_image("talker", echo)
    for text in (b"one", "zw\u00f6lf".encode(), b"x" * 40_000):
        shared.call("talker", text, path="/print")
    wait_for(lambda: len(_printed(shared, "talker")) == 3, "its lines")
    assert _printed(shared, "talker") == ["one", "zw\u00f6lf", "x" * 40_000]


def _printed(platform: Platform, name: str) -> list[str]:
    texts = [line.text.rstrip("\n") for line in platform.logs(name)]
    return [text for text in texts if text in ("one", "two", "zw\u00f6lf") or set(text) == {"x"}]


# Kills


def test_a_killed_container_is_replaced_and_its_end_is_told(cluster: Cluster, shared: Platform, echo: str) -> None:
    shared.deploy_image("mortal", echo)
    (old,) = containers(cluster, "mortal")
    cluster.docker("kill", old)
    wait_for(lambda: containers(cluster, "mortal") not in ([old], []), "another container")
    assert shared.call("mortal", b"x").text == "echo x"
    assert shared.call("mortal", b"3", path="/end").status == 502
    wait_for(lambda: shared.call("mortal", b"x").status == 200, "another one")
    assert "ended unasked (killed by SIGKILL" in shared.log and "ended unasked (exit code 3" in shared.log
    assert shared.condition("mortal").restarts >= 2


def test_a_container_that_somebody_removes_is_replaced(cluster: Cluster, shared: Platform, echo: str) -> None:
    shared.deploy_image("removed", echo)
    (old,) = containers(cluster, "removed")
    cluster.docker("rm", "-f", old)
    wait_for(lambda: containers(cluster, "removed") not in ([old], []), "another container")
    assert shared.call("removed", b"x").text == "echo x"


def test_control_is_killed_and_takes_its_containers_over(
    make: Callable[..., Platform], cluster: Cluster, echo: str
) -> None:
    platform = make()
    platform.deploy_image("survivor", echo)
    platform.scale("survivor", 2)
    before = containers(cluster, "survivor")
    platform.call("survivor", b"one", path="/print")
    wait_for(lambda: _printed(platform, "survivor") == ["one"], "its line")
    platform.kill("control")
    assert platform.call("survivor", b"x").text == "echo x"
    platform.wait_until_it_answers()
    platform.call("survivor", b"two", path="/print")
    wait_for(lambda: "two" in _printed(platform, "survivor"), "the next line")
    assert sorted(_printed(platform, "survivor")) == ["one", "two"]
    assert containers(cluster, "survivor") == before
    assert [one.state for one in platform.condition("survivor").instances] == ["ready", "ready"]
    platform.client.remove("survivor")
    wait_for(lambda: not containers(cluster, "survivor", all=True), "the end of its containers")


def test_what_was_removed_while_control_was_down_goes(
    make: Callable[..., Platform], cluster: Cluster, echo: str
) -> None:
    platform = make()
    platform.deploy_image("orphan", echo)
    supervisor = platform.pid("supervisor")
    os.kill(supervisor, signal.SIGSTOP)  # so that nothing starts control again before the file has gone
    try:
        platform.kill("control")
        next(platform.data.functions.glob("*/orphan.json")).unlink()
    finally:
        os.kill(supervisor, signal.SIGCONT)
    platform.wait_until_it_answers()
    wait_for(lambda: not containers(cluster, "orphan", all=True), "the end of what no function owns")


def test_the_platform_is_killed_and_the_next_start_begins_anew(
    make: Callable[..., Platform], cluster: Cluster, echo: str
) -> None:
    platform = make()
    platform.deploy_image("phoenix", echo)
    (old,) = containers(cluster, "phoenix")
    platform.kill_everything()
    assert containers(cluster, "phoenix") == [old]
    platform.start()
    platform.wait_ready("phoenix")
    assert platform.call("phoenix", b"x").text == "echo x"
    assert old not in containers(cluster, "phoenix", all=True)


def test_a_stop_leaves_no_container_and_touches_none_of_another_platform(
    make: Callable[..., Platform], cluster: Cluster, echo: str
) -> None:
    one, two = make(), make()
    for platform in (one, two):
        platform.deploy_image("twin", echo)
    assert len(containers(cluster, "twin")) == 2
    one.stop()
    (left,) = containers(cluster, "twin", all=True)
    assert two.call("twin", b"x").text == "echo x"
    one.start()
    assert one.call("twin", b"x").text == "echo x"
    assert left in containers(cluster, "twin")


# Without an Engine


def test_without_an_engine_the_deploy_says_what_to_do(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--docker-host", "unix:///nonexistent/docker.sock", "--no-async"))
    with pytest.raises(Unavailable, match=r"no Docker Engine answers at unix:///nonexistent.*--docker-host"):
        platform.deploy_image("greet", "ghcr.io/x/greet:1")
    with pytest.raises(StokerError, match="--allow-host-programs"):
        platform.deploy_image("greet", "none", env_process="cat")
    platform.deploy("process", VERSION.format("fine"))
    assert platform.call("process").text == "fine"
    assert not platform.data.containers.exists()
