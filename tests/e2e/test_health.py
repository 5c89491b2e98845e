"""The hook `health`, as callers and owners see it: out of the way while it is bad, then back by itself, or replaced."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loads import calls_going_on, elapsed_under, wrk
from pooled import set_secret, texts
from running_platform import Answer, Platform, is_alive, wait_for

READY, ALIVE = "com.openfaas.ready.http.", "com.openfaas.health.http."
HASTY = {READY + "periodSeconds": "1", READY + "failureThreshold": "1"}

GUARDED = """
import os

def health():
    for name in ("all", os.environ["STOKER_REPLICA"]):
        path = os.path.join({folder!r}, name)
        if os.path.exists(path):
            raise OSError(open(path).read())

def handle(event, context):
    return os.environ["STOKER_REPLICA"]
"""
NEVER = """
def health():
    return False

def handle(event, context):
    return "never"
"""
CHATTY = """
import json, os, threading

def say():
    n = 0
    print("saying")
    while True:
        n += 1
        os.write(4, json.dumps({{"health": {reason}}}).encode() + b"\\n")

def init():
    threading.Timer(0.5, say).start()

def handle(req):
    return "chatty"
"""
CHATTER = {"often": '"x" * (n % 2)', "long": '"é\\n" * 500000', "odd": "n % 2 * [1]", "lines": '"\\n" * n'}


class Ward:
    """Says which replicas are to be unhealthy."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stoker-sick-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.handler = GUARDED.format(folder=str(self.folder))

    def sicken(self, name: str = "all", reason: str = "no database") -> None:
        (self.folder / name).write_text(reason)
        (self.folder / name).chmod(0o644)

    def heal(self, name: str = "all") -> None:
        (self.folder / name).unlink()


@pytest.fixture
def ward() -> Iterator[Ward]:
    made = Ward()
    yield made
    shutil.rmtree(made.folder)


def deploy(platform: Platform, name: str, handler: str, *, wait: bool = True, **annotations: str) -> int:
    return platform.deploy(name, handler, lang="python3-http", annotations=HASTY | annotations, wait=wait)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def available(platform: Platform, name: str) -> int:
    return platform.status(name).available_replicas


def probe(platform: Platform, id: str, path: str) -> tuple[int, str]:
    """A page of the replica's own, over its socket."""
    settings = next((platform.run_folder / "settings").glob(f"{id}.json")).read_text()
    address = settings.partition('"socket":"')[2].partition('"')[0]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def test_calls_go_to_the_healthy_and_no_other_is_started(platform: Platform, ward: Ward) -> None:
    deploy(platform, "guarded", ward.handler)
    platform.scale("guarded", 3)
    sick, *fine = sorted(one.id for one in platform.condition("guarded").instances)
    before = platform.replicas("guarded")
    with wrk(platform, "guarded") as load:
        with calls_going_on(platform, "guarded", 200):
            ward.sicken(sick)
            wait_for(lambda: available(platform, "guarded") == 2, "one less")
        report = load.report()
    assert (report.socket, report.bad) == (0, 0)
    assert {platform.call("guarded").text for _ in range(20)} == set(fine)
    assert probe(platform, sick, "/_/ready") == (503, "unhealthy: `health` raised OSError: no database\n")
    assert probe(platform, sick, "/_/health") == (200, "OK")
    assert probe(platform, fine[0], "/_/ready") == (200, "OK")
    assert "unhealthy: `health` raised OSError: no database" in texts(platform, "guarded")
    ward.heal(sick)
    wait_for(lambda: available(platform, "guarded") == 3, "it to come back")
    assert platform.replicas("guarded") == before
    assert probe(platform, sick, "/_/ready") == (200, "OK")
    assert "healthy again" in texts(platform, "guarded")


def test_calls_wait_while_all_are_unhealthy_and_go_on_when_one_is_not(platform: Platform, ward: Ward) -> None:
    deploy(platform, "waits", ward.handler)
    ward.sicken()
    wait_for(lambda: available(platform, "waits") == 0, "unreadiness")
    assert platform.condition("waits").state == "unhealthy"
    found: list[Answer] = []
    caller = threading.Thread(target=lambda: found.append(platform.call("waits")))
    caller.start()
    caller.join(1)
    assert not found
    ward.heal()
    caller.join(10)
    assert [answer.status for answer in found] == [200]


@pytest.mark.slow
def test_calls_are_told_why_when_it_lasts(platform: Platform, ward: Ward) -> None:
    deploy(platform, "lasts", ward.handler)
    (pid,) = platform.replicas("lasts")
    ward.sicken()
    wait_for(lambda: available(platform, "lasts") == 0, "unreadiness")
    with elapsed_under(15):
        answer = platform.call("lasts")  # which waits for a while
    assert answer.status == 503
    assert "its replicas are unhealthy: `health` raised OSError: no database" in answer.text
    assert answer.headers["x-stoker-error"] == "function; unhealthy"
    assert platform.condition("lasts").code == "unhealthy"
    with elapsed_under(1):
        assert platform.call("lasts").status == 503
    ward.heal()
    wait_for(lambda: platform.call("lasts").status == 200, "its recovery")
    assert platform.replicas("lasts") == [pid]


def test_what_stays_unhealthy_is_replaced_after_its_own_longer_threshold(platform: Platform, ward: Ward) -> None:
    deploy(platform, "replaced", ward.handler, **{ALIVE + "failureThreshold": "3"})
    (old,) = platform.condition("replaced").instances
    ward.sicken(old.id)
    wait_for(lambda: available(platform, "replaced") == 0, "unreadiness")
    wait_for(lambda: available(platform, "replaced") == 1, "another")
    assert platform.replicas("replaced") != [old.pid]
    wait_for(lambda: not is_alive(old.pid), "the end of the old one")
    assert platform.condition("replaced").restarts == 1


@pytest.mark.slow
def test_what_stays_unhealthy_for_ever_is_replaced_with_growing_pauses(platform: Platform, ward: Ward) -> None:
    deploy(platform, "hopeless", ward.handler, **{ALIVE + "failureThreshold": "1"})
    ward.sicken()
    wait_for(lambda: platform.condition("hopeless").restarts >= 4, "four replacements", 40)
    assert "its replicas stay unhealthy: `health` raised OSError" in platform.condition("hopeless").message
    starts = platform.condition("hopeless").restarts
    ward.heal()
    wait_for(lambda: available(platform, "hopeless") == 1, "its recovery", 40)
    assert platform.condition("hopeless").restarts <= starts + 1
    wait_for(lambda: platform.condition("hopeless").message == "", "the end of the trouble")


def test_an_update_that_is_unhealthy_takes_nothing_from_the_version_before(platform: Platform) -> None:
    first = deploy(platform, "careful-pool", "def handle(event, context):\n    return 'first'\n")
    with wrk(platform, "careful-pool", connections=4) as load:
        revision = deploy(platform, "careful-pool", NEVER, wait=False)
        wait_for(lambda: "1 of 2 replicas unhealthy" in platform.condition("careful-pool").message, "its start")
        assert platform.condition("careful-pool").state == "deploying"
        report = load.report()
    assert (report.socket, report.bad) == (0, 0)
    assert platform.call("careful-pool").text == "first"
    assert revision > first
    better = platform.deploy("careful-pool", "def handle(req):\n    return 'better'\n")
    assert platform.call("careful-pool").text == "better"
    assert platform.condition("careful-pool").serving == better


def test_a_version_that_is_never_healthy_fails_after_the_start_timeout(platform: Platform) -> None:
    settings = HASTY | {"stoker.dev/start_timeout": "2s"}
    with elapsed_under(20):
        revision = platform.deploy("never", NEVER, lang="python3-http", annotations=settings, wait=False)
        condition = platform.wait_failed("never", revision)
    assert condition.message == "it was not healthy within 2 s (start_timeout): `health` returned False"
    assert platform.call("never").status == 503


def test_health_is_known_to_the_next_control(own_platform: Platform, ward: Ward) -> None:
    platform = own_platform
    deploy(platform, "remembered", ward.handler)
    platform.scale("remembered", 2)
    sick, fine = sorted(one.id for one in platform.condition("remembered").instances)
    ward.sicken(sick)
    wait_for(lambda: available(platform, "remembered") == 1, "unreadiness")
    platform.kill("control")
    platform.wait_until_it_answers()
    wait_for(lambda: len(platform.condition("remembered").instances) == 2, "their adoption")
    assert {one.id: one.state for one in platform.condition("remembered").instances} == {
        sick: "unhealthy",
        fine: "ready",
    }
    ward.heal(sick)
    wait_for(lambda: available(platform, "remembered") == 2, "its return")


@pytest.mark.parametrize(("kind", "reason"), CHATTER.items())
def test_a_replica_that_says_too_much_is_unheard_and_hurts_nobody(platform: Platform, kind: str, reason: str) -> None:
    name = f"chatty-{kind}"
    deploy(platform, name, CHATTY.format(reason=reason), wait=False)
    wait_for(lambda: "saying" in texts(platform, name), "its words")
    (instance,) = platform.condition(name).instances
    assert len(instance.message) <= 200
    before = cpu_seconds(platform.pid("fork server"))
    time.sleep(1)
    assert cpu_seconds(platform.pid("fork server")) - before < 0.3  # it has ceased to listen
    with elapsed_under(5):
        platform.deploy("quiet", "def handle(req):\n    return 'quiet'\n")
        assert platform.call("quiet").text == "quiet"
    platform.client.remove(name)
    wait_for(lambda: not is_alive(instance.pid), "its end")


def test_a_secret_that_is_gone_is_a_clear_failure_and_mended_by_making_it(own_platform: Platform) -> None:
    platform = own_platform
    set_secret(platform, "key", "one")
    handler = "def handle(event, context):\n    return context.secret('key')\n"
    platform.deploy("needs", handler, lang="python3-http", secrets=["key"])
    assert platform.call("needs").text == "one"
    platform.client.remove_secret("key", "openfaas-fn")
    platform.stop()
    platform.start()
    answer = wait_for(lambda: (one := platform.call("needs")).status == 503 and one, "the refusal")
    assert "'key'" in answer.text and "'key'" in platform.condition("needs").message
    set_secret(platform, "key", "two")
    wait_for(lambda: platform.call("needs").text == "two", "the new value")
