"""`stoker revisions` and `stoker rollback` on a real platform: under load, over restarts, through kills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from loads import calls_going_on, wrk
from running_platform import Platform, wait_for

from stoker_sdk.errors import StokerError, Unavailable
from stoker_sdk.function import Resources
from stoker_sdk.messages import Secret

VERSION = """
import os, time

def init():
    time.sleep(float(os.environ.get("INIT", "0")))

def handle(req):
    return {!r} + os.environ.get("LEVEL", "")
"""
KEPT_TWO = {"stoker.dev/revisions": "2"}


def stoker(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stoker_cli", *arguments],
        capture_output=True,
        text=True,
        env=platform.environment | {"OPENFAAS_URL": platform.http_url},
        timeout=60,
        check=False,
    )


def revisions(platform: Platform, name: str) -> list[dict[str, Any]]:
    done = stoker(platform, "revisions", name, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def numbers(platform: Platform, name: str) -> list[int]:
    return [one["number"] for one in revisions(platform, name)]


def artefacts(platform: Platform) -> set[str]:
    return {path.name for path in platform.data.artefacts.iterdir() if not path.name.startswith(".")}


def digest(platform: Platform, name: str) -> str:
    return platform.status(name).image.rpartition(":")[2]


def make_old(platform: Platform) -> None:
    """As if nobody had built or deployed any artefact for two days."""
    for path in platform.data.artefacts.iterdir():
        os.utime(path, (time.time() - 172_800,) * 2)


def test_image_environment_and_limits_come_back_under_load_and_no_call_fails(own_platform: Platform) -> None:
    platform = own_platform
    platform.deploy("back", VERSION.format("one "), env_vars={"LEVEL": "debug"}, limits=Resources(memory="200Mi"))
    platform.deploy("back", VERSION.format("two "))
    platform.scale("back", 2)
    built = artefacts(platform)
    with wrk(platform, "back") as load:
        for text in ("one debug", "two ", "one debug"):  # a rollback undoes the one before
            done = stoker(platform, "rollback", "back")
            assert done.returncode == 0, done.stderr
            assert platform.call("back").text == text
            with calls_going_on(platform, "back", 200):
                pass
        report = load.report()
    assert (report.socket, report.timeout, report.bad) == (0, 0, 0)
    assert done.stdout == "back: revision 5, with the content of revision 3\n"
    status = platform.status("back")
    assert (status.env_vars, status.limits, status.replicas) == ({"LEVEL": "debug"}, Resources(memory="200Mi"), 2)
    assert artefacts(platform) == built
    shown = stoker(platform, "revisions", "back").stdout.splitlines()
    assert len(shown) == 6 and [line.split()[0] for line in shown if "serving" in line] == ["5"]
    assert shown[-1].endswith("rollback to 3: envVars.LEVEL, image, limits.memory")


def test_the_history_outlives_a_restart(own_platform: Platform) -> None:
    platform = own_platform
    for text in ("one", "two", "three"):
        platform.deploy("stays", VERSION.format(text))
    before = revisions(platform, "stays")
    platform.stop()
    platform.start()
    wait_for(lambda: revisions(platform, "stays") == before, "the same history, and who serves")
    assert stoker(platform, "rollback", "stays", "1").returncode == 0
    assert platform.call("stays").text == "one"
    assert numbers(platform, "stays") == [1, 2, 3, 4]


def test_control_is_killed_midway_and_the_rollback_comes_to_its_end(own_platform: Platform) -> None:
    platform = own_platform
    platform.deploy("midway", VERSION.format("one"), env_vars={"INIT": "2"})
    platform.deploy("midway", VERSION.format("two"))
    with wrk(platform, "midway", connections=4) as load:
        assert stoker(platform, "rollback", "midway", "--no-wait").returncode == 0
        assert platform.condition("midway").serving == 2
        platform.kill("control")
        platform.wait_until_it_answers()
        wait_for(lambda: platform.condition("midway").serving == 3, "the rollback to be proven")
        with calls_going_on(platform, "midway", 200):
            pass
        report = load.report()
    assert (report.socket, report.timeout, report.bad) == (0, 0, 0)
    assert platform.call("midway").text == "one"
    assert [(one["number"], one.get("rollbackTo")) for one in revisions(platform, "midway")] == [
        (1, None),
        (2, None),
        (3, 1),
    ]


@pytest.mark.slow
def test_a_rollback_whose_control_is_killed_has_happened_or_has_not(own_platform: Platform) -> None:
    platform = own_platform
    for text in ("one", "two"):
        platform.deploy("whole", VERSION.format(text))
    for number in range(6):
        before = numbers(platform, "whole")
        answered: list[int] = []
        caller = threading.Thread(target=lambda: answered.append(_rolled_back(platform)))  # noqa: B023 - joined below
        caller.start()
        time.sleep(0.002 * number)  # not for luck: each round kills at another moment
        platform.kill("control")
        caller.join()
        platform.wait_until_it_answers()
        found = revisions(platform, "whole")
        after = [one["number"] for one in found]
        assert after in (before, [*before, before[-1] + 1])
        assert not answered[0] or answered[0] == after[-1]
        condition = platform.wait_ready("whole", after[-1])
        assert (condition.revision, condition.serving) == (after[-1], after[-1])
        assert platform.status("whole").image == found[-1]["image"]


def _rolled_back(platform: Platform) -> int:
    """The number of the new revision; 0 if no answer came."""
    try:
        return platform.client.rollback("whole").revision
    except Unavailable:
        return 0


def test_artefacts_of_kept_revisions_are_not_collected(own_platform: Platform) -> None:
    platform = own_platform
    made = []
    for text in ("one", "two", "three"):
        platform.deploy("hoards", VERSION.format(text), annotations=KEPT_TWO)
        made.append(digest(platform, "hoards"))
    platform.deploy("leaves", VERSION.format("gone"))
    made.append(digest(platform, "leaves"))
    platform.client.remove("leaves")
    platform.stop()
    make_old(platform)
    platform.start()  # collects
    wait_for(lambda: artefacts(platform) == set(made[1:3]), "the end of what nothing names any more")
    assert numbers(platform, "hoards") == [2, 3]
    assert stoker(platform, "rollback", "hoards").returncode == 0
    assert platform.call("hoards").text == "two"


def test_ten_are_kept_and_removal_forgets_them(platform: Platform) -> None:
    image = platform.build("many", VERSION.format(""))
    for number in range(12):
        platform.deploy_image("many", image, env_vars={"LEVEL": f"{number}"})
    assert numbers(platform, "many") == list(range(3, 13))
    done = stoker(platform, "rollback", "many", "1")
    assert done.returncode == 1 and "no revision 1" in done.stderr and "11, 12" in done.stderr
    platform.client.remove("many")
    assert stoker(platform, "revisions", "many").returncode == 1
    platform.deploy_image("many", image)
    assert numbers(platform, "many") == [1]


def test_a_secret_that_is_gone_is_named_and_the_live_version_serves_on(platform: Platform) -> None:
    platform.client.create_secret(Secret("rolled", value="x"))
    platform.deploy("needs", VERSION.format("one"), secrets=["rolled"])
    platform.deploy("needs", VERSION.format("two"))
    platform.client.remove_secret("rolled")
    before = platform.replicas("needs")
    done = stoker(platform, "rollback", "needs")
    assert done.returncode == 1
    assert "revision 1 cannot be put live again" in done.stderr and "secret 'rolled' does not exist" in done.stderr
    assert (platform.call("needs").text, platform.replicas("needs")) == ("two", before)
    assert numbers(platform, "needs") == [1, 2]
    platform.client.create_secret(Secret("rolled", value="x"))
    assert stoker(platform, "rollback", "needs").returncode == 0
    assert platform.call("needs").text == "one"


def test_an_artefact_that_somebody_took_away_is_named_and_the_live_version_serves_on(platform: Platform) -> None:
    platform.deploy("robbed", VERSION.format("robbed of one"))
    taken = platform.data.artefact(digest(platform, "robbed"))
    platform.deploy("robbed", VERSION.format("robbed of two"))
    taken.rename(taken.with_name(".taken"))
    try:
        with pytest.raises(StokerError, match=r"revision 1 cannot be put live again: .*not on this machine"):
            platform.client.rollback("robbed", 1)
    finally:
        taken.with_name(".taken").rename(taken)
    assert platform.call("robbed").text == "robbed of two"
    assert numbers(platform, "robbed") == [1, 2]


def test_a_revision_that_failed_is_passed_over_and_told(platform: Platform) -> None:
    platform.deploy("wobbles", VERSION.format("good"))
    platform.wait_failed("wobbles", platform.deploy("wobbles", "import nowhere\ndef handle(req): ...\n", wait=False))
    state = {one["number"]: (one.get("serving"), one.get("failed")) for one in revisions(platform, "wobbles")}
    assert state == {1: (True, None), 2: (None, True)}
    done = stoker(platform, "rollback", "wobbles")
    assert done.stdout == "wobbles: revision 3, with the content of revision 1\n"
    done = stoker(platform, "rollback", "wobbles", "2")
    assert done.returncode == 1 and "it did not start" in done.stderr
    assert platform.call("wobbles").text == "good"
