"""Functions that cannot start: what their owner is told, what callers get, and that what served before serves on."""

from __future__ import annotations

import shutil

import pytest
from loads import calls_going_on, elapsed_under, wrk
from running_platform import Platform, is_alive, wait_for

from stoker_sdk.errors import BadInput

GOOD = "def handle(req):\n    return 'good'\n"
HANDLE = "def handle(req): ...\n"
BROKEN = {
    "import error": ("import nowhere_to_be_found", "nowhere_to_be_found"),
    "exception": ("raise ValueError('no luck')", "ValueError: no luck"),
    "no handle": ("del handle", "no function `handle`"),
    "wrong arguments": ("handle = lambda a, b, c: a", "takes 3 arguments"),
    "sys exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "os exit": ("import os; os._exit(3)", "exit code 3"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    "bad hook": ("def init(): raise OSError('no database')", "no database"),
}
BROKEN = {kind: (f"{HANDLE}print('so far', flush=True)\n{code}\n", message) for kind, (code, message) in BROKEN.items()}
ENDLESS = f"{HANDLE}import time\nprint('importing')\nwhile True:\n    time.sleep(1)\n"
CRASHING = """
import os, threading

def init():
    threading.Timer(0.2, lambda: os._exit(7)).start()

def handle(req):
    return 'good'
"""


@pytest.mark.parametrize("kind", BROKEN)
def test_a_first_version_that_cannot_start_is_reported_and_callers_are_told(platform: Platform, kind: str) -> None:
    code, message = BROKEN[kind]
    name = kind.replace(" ", "-")
    with elapsed_under(10):
        revision = platform.deploy(name, code, wait=False)
        condition = platform.wait_failed(name, revision)
        answer = platform.call(name)
    assert message in condition.message
    assert len(condition.message.splitlines()) <= 2
    assert condition.output[0] == "so far"
    frames = [line for line in condition.output if line.startswith("  File ")]
    assert all("/artefacts/" in line for line in frames), frames
    assert answer.status == 503
    assert message in answer.text
    assert answer.headers["x-stoker-error"].startswith("function")
    assert condition.instances == [] and platform.status(name).available_replicas == 0
    platform.client.remove(name)


@pytest.mark.parametrize("kind", ["import error", "os exit", "sys exit"])
def test_the_version_before_serves_on_during_and_after_a_failed_update(platform: Platform, kind: str) -> None:
    code, message = BROKEN[kind]
    platform.deploy("careful", GOOD)
    with wrk(platform, "careful", connections=4) as load:
        with calls_going_on(platform, "careful", 200):
            revision = platform.deploy("careful", code, wait=False)
            condition = platform.wait_failed("careful", revision)
        report = load.report()
    assert (report.socket, report.bad) == (0, 0)
    assert message in condition.message
    assert (condition.revision, condition.serving) == (revision, revision - 1)
    assert platform.call("careful").text == "good"
    better = platform.deploy("careful", GOOD.replace("good", f"better than {kind}"))
    assert platform.call("careful").text == f"better than {kind}"
    condition = platform.condition("careful")
    assert (condition.state, condition.serving, condition.message, condition.output) == ("ready", better, "", [])


def test_a_function_whose_artefact_is_gone_is_listed_with_the_reason_until_it_is_built_again(
    own_platform: Platform,
) -> None:
    own_platform.deploy("homeless", GOOD)
    own_platform.stop()
    for artefact in own_platform.data.artefacts.iterdir():
        shutil.rmtree(artefact)
    own_platform.start()
    condition = own_platform.wait_failed("homeless")
    assert "not on this machine" in condition.message and condition.code == "cannot-start"
    assert own_platform.call("homeless").status == 503
    own_platform.deploy("homeless", GOOD)
    assert own_platform.call("homeless").text == "good"


def test_a_good_version_recovers_a_function_that_never_ran(platform: Platform) -> None:
    platform.wait_failed("late", platform.deploy("late", BROKEN["import error"][0], wait=False))
    platform.deploy("late", GOOD)
    assert platform.call("late").text == "good"


def test_a_failed_version_is_not_started_again_and_again(platform: Platform) -> None:
    platform.wait_failed("once", platform.deploy("once", BROKEN["exception"][0], wait=False))
    for _ in range(20):
        assert platform.call("once").status == 503
    folder = platform.data.logs / "openfaas-fn" / "once"
    assert len(list(folder.glob("*.log"))) == 1


def test_a_failure_is_remembered_over_a_restart(own_platform: Platform) -> None:
    own_platform.deploy("keeps", GOOD)
    failed = own_platform.deploy("keeps", BROKEN["import error"][0], wait=False)
    own_platform.wait_failed("keeps", failed)
    own_platform.stop()
    own_platform.start()
    assert own_platform.call("keeps").text == "good"
    condition = own_platform.condition("keeps")
    assert (condition.state, condition.revision, condition.serving) == ("failed", failed, failed - 1)
    assert "nowhere_to_be_found" in condition.message


def test_an_endless_import_holds_up_nobody_and_can_be_replaced(platform: Platform) -> None:
    platform.deploy("endless", ENDLESS, wait=False)
    wait_for(lambda: any(line.text == "importing\n" for line in platform.logs("endless")), "the import")
    assert platform.condition("endless").state == "deploying"
    (hanging,) = [instance.pid for instance in platform.condition("endless").instances]
    with elapsed_under(3):
        platform.deploy("other", GOOD)
        assert platform.call("other").text == "good"
        platform.deploy("endless", GOOD)
        assert platform.call("endless").text == "good"
        wait_for(lambda: not is_alive(hanging), "the end of the one that hangs")


def test_an_endless_import_can_be_removed(platform: Platform) -> None:
    platform.deploy("stuck", ENDLESS, wait=False)
    wait_for(lambda: any(instance.pid for instance in platform.condition("stuck").instances), "its start")
    (hanging,) = [instance.pid for instance in platform.condition("stuck").instances]
    with elapsed_under(3):
        platform.client.remove("stuck")
        wait_for(lambda: not is_alive(hanging), "its end")


@pytest.mark.slow
def test_a_crash_loop_slows_down_and_callers_are_told(platform: Platform) -> None:
    platform.deploy("loops", CRASHING, wait=False)
    wait_for(lambda: platform.condition("loops").restarts >= 4, "four crashes")
    wait_for(lambda: "exit code 7" in platform.condition("loops").message, "the reason")
    starts = platform.condition("loops").restarts
    with elapsed_under(5):
        answer = platform.call("loops")
        assert answer.status in (200, 502, 503)
    assert platform.condition("loops").restarts <= starts + 2  # it waits longer from crash to crash
    platform.deploy("loops", GOOD)
    assert platform.call("loops").text == "good"


def test_a_failing_test_makes_no_artefact_and_deploys_nothing(platform: Platform) -> None:
    before = set(platform.data.artefacts.glob("*"))
    files = {"handler.py": GOOD, "handler_test.py": "def test_it():\n    assert 1 == 2\n"}
    with pytest.raises(AssertionError, match="assert 1 == 2"):
        platform.build("untested", files)
    assert set(platform.data.artefacts.glob("*")) == before
    assert not list(platform.data.builds.glob("run-*/upload"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def handle(req) return 1\n", "handler.py:1: expected ':'"),
        ("def handel(req): ...\n", "handler.py does not define handle"),
    ],
)
def test_what_can_never_start_is_not_even_built(platform: Platform, code: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        platform.build("hopeless", code)


def test_an_image_that_is_not_here_is_refused_and_nothing_is_stored(platform: Platform) -> None:
    for image in ("stoker.local/nodeinfo:latest", f"stoker.local/x@sha256:{'0' * 64}", "stoker.local/../../etc"):
        with pytest.raises(BadInput, match="image"):
            platform.deploy_image("foreign", image)
    assert "foreign" not in [status.name for status in platform.client.functions()]
    assert not list(platform.data.functions.rglob("foreign*"))
