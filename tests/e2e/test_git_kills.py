"""Whatever is killed while a push is on its way: its run ends in a true verdict, one version is live, none is left."""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from process_kills import ROLES, kill_while_a_push_goes
from running_platform import Platform, command_line, wait_for
from working_copy import WorkingCopy, handler, passing, stack

from stoker_sdk.errors import StokerError
from stoker_sdk.runs import Run

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("STOKER_GIT_KILLS", "10"))


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_every_run_ends_in_a_true_verdict(own_platform: Platform, tmp_path: Path) -> None:
    seed = int(os.environ.get("STOKER_SEED", str(random.randrange(1 << 30))))
    print(f"STOKER_SEED={seed}")
    chance = random.Random(seed)
    copy = WorkingCopy(own_platform, tmp_path / "greet", "me/greet")
    copy.commit(**passing("greet", "0 "), stackDOTyml=stack("greet"))
    assert copy.push("-o", "wait").code == 0
    live, killed, versions = "0 you", Counter[str](), 1
    for number in range(1, ROUNDS + 1):
        good = chance.random() < 0.75
        sha = _commit(copy, number, good)
        pushing = copy.start("push", copy.url, "main")
        role = ROLES[number % len(ROLES)]
        was_there = kill_while_a_push_goes(own_platform, role, chance)
        killed.update([role] * was_there)
        said, _ = pushing.communicate(timeout=60)
        print(f"round {number}: {role} {'killed' if was_there else 'was not there'}\n{said}")
        own_platform.wait_until_it_answers()
        run = _ended(copy, sha)
        assert run.state == ("succeeded" if good else "failed"), run
        live, versions = (f"{number} you", versions + 1) if good else (live, versions)
        if not good:
            assert run.functions[0].test == "handler_test.py::test_it_answers"
        assert copy.answer("greet") == live
    print(f"killed: {dict(killed)}")
    assert 3 * len(ROLES) > ROUNDS or set(killed) == set(ROLES)
    _nothing_is_left(copy, versions)


def _commit(copy: WorkingCopy, number: int, good: bool) -> str:
    files = passing("greet", f"{number} ")
    if not good:
        files["greet__handlerDOTpy"] = handler(f"{number} broken ")
    return copy.commit(**files)


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


def _nothing_is_left(copy: WorkingCopy, versions: int) -> None:
    platform = copy.platform
    assert not [run for run in copy.runs() if run.is_open]
    condition = platform.condition(copy.service("greet"))
    assert condition.state == "ready" and len(platform.replicas(copy.service("greet"))) == 1
    assert not list((platform.data.git / "checkouts").glob("*run-*"))
    assert len(_held(platform.data.builds)) <= 1  # by the builder that waits for the next build
    # One artefact for each version that passed its tests, whole, and none of the others.
    manifests = [path / "artefact.json" for path in platform.data.artefacts.iterdir()]
    assert len(manifests) == versions and all(path.is_file() for path in manifests)
    serving = [each for each in platform.client.revisions(copy.service("greet")) if each.serving]
    assert len(serving) == 1
    left = [command_line(pid) for pid in platform.processes()]
    assert not [line for line in left if "git" in line[0]]
    assert sum("stoker_builder.pipeline.run" in line for line in left) <= 1  # that of the next run


def _held(builds: Path) -> list[Path]:
    """Folders of builds; each must be one that a process holds."""
    wait_for(lambda: all(_is_locked(path) for path in builds.glob("run-*")), "the end of folders that nobody holds")
    folders = list(builds.glob("run-*"))
    assert {path.name for path in builds.glob("lock-run-*")} == {f"lock-{path.name}" for path in folders}
    return folders


def _is_locked(folder: Path) -> bool:
    with (folder.parent / f"lock-{folder.name}").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
