"""Whatever is killed while a push is on its way: its run ends in a true verdict, one version is live, none is left."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from running_platform import Platform, command_line, is_alive, wait_for
from working_copy import WorkingCopy, handler, passing, stack

from stoker_sdk.errors import StokerError
from stoker_sdk.runs import Run

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("STOKER_GIT_KILLS", "10"))
ROLES = ("pipeline", "run", "builder", "control", "broker", "fork server", "worker 0")


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_every_run_ends_in_a_true_verdict(own_platform: Platform, tmp_path: Path) -> None:
    seed = int(os.environ.get("STOKER_SEED", str(random.randrange(1 << 30))))
    print(f"STOKER_SEED={seed}")
    chance = random.Random(seed)
    copy = WorkingCopy(own_platform, tmp_path / "greet", "me/greet")
    copy.commit(**passing("greet", "0 "), stackDOTyml=stack("greet"))
    assert copy.push("-o", "wait").code == 0
    live = "0 you"
    for number in range(1, ROUNDS + 1):
        good = chance.random() < 0.75
        sha = _commit(copy, number, good)
        pushing = copy.start("push", copy.url, "main")
        role = chance.choice(ROLES)
        time.sleep(chance.random() * 1.2)
        killed = _kill(own_platform, role)
        said, _ = pushing.communicate(timeout=60)
        print(f"round {number}: {role} {'killed' if killed else 'was not there'}\n{said}")
        own_platform.wait_until_it_answers()
        run = _ended(copy, sha)
        assert run.state == ("succeeded" if good else "failed"), run
        live = f"{number} you" if good else live
        if not good:
            assert run.functions[0].test == "handler_test.py::test_it_answers"
        assert copy.answer("greet") == live
    _nothing_is_left(copy)


def _commit(copy: WorkingCopy, number: int, good: bool) -> str:
    files = passing("greet", f"{number} ")
    if not good:
        files["greet__handlerDOTpy"] = handler(f"{number} broken ")
    return copy.commit(**files)


def _kill(platform: Platform, role: str) -> bool:
    """Whether there was such a process."""
    pid = _pid(platform, role)
    if not pid:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    wait_for(lambda: not is_alive(pid), f"the end of {role}")
    return True


def _pid(platform: Platform, role: str) -> int:
    modules = {"run": "stoker_builder.pipeline.run", "builder": "stoker_builder"}
    if role in modules:
        return next((pid for pid in platform.processes() if modules[role] in command_line(pid)), 0)
    return platform.pids().get(role, 0)


def _ended(copy: WorkingCopy, sha: str) -> Run:
    """The run of the commit, when it has ended. A push that did not get through is repeated."""

    def newest() -> Run | None:
        try:
            runs = copy.runs()
        except StokerError:
            return None
        return runs[0] if runs and runs[0].push.sha == sha and not runs[0].is_open else None

    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if sha in copy.run("ls-remote", copy.url).said:
            break
    else:
        copy.push()
    return wait_for(newest, f"the end of the run of {sha}", 60)


def _nothing_is_left(copy: WorkingCopy) -> None:
    platform = copy.platform
    assert not [run for run in copy.runs() if run.is_open]
    condition = platform.condition(copy.service("greet"))
    assert condition.state == "ready" and len(platform.replicas(copy.service("greet"))) == 1
    for folder in (platform.data.builds, platform.data.git / "checkouts"):
        assert not list(folder.glob("run-*")), folder
    left = [command_line(pid) for pid in platform.processes()]
    assert not [line for line in left if "git" in line[0] or "stoker_builder.pipeline.run" in line]
