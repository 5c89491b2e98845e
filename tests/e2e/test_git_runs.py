"""Runs outlive who asked for them: kills, stops, clients that leave; they are listed, cancelled and repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running_platform import Platform, wait_for
from working_copy import WorkingCopy, handler, passing, stack

from stoker_sdk.errors import Conflict, NotFound
from stoker_sdk.runs import Run

pytestmark = pytest.mark.slow

SLOW_TEST = "import time\n\n\ndef test_it():\n    print('it takes its time')\n    time.sleep({seconds})\n"


def slow(name: str, answer: str, seconds: float) -> dict[str, str]:
    return {
        f"{name}__handlerDOTpy": handler(answer),
        f"{name}__handler_testDOTpy": SLOW_TEST.format(seconds=seconds),
    }


def ended(copy: WorkingCopy, id: int) -> Run:
    runs = copy.platform.client.runs
    wait_for(lambda: not runs.show(id).is_open, f"the end of run {id}", 60)
    return runs.show(id)


def test_a_run_goes_on_after_everything_was_killed(own_platform: Platform, tmp_path: Path) -> None:
    copy = WorkingCopy(own_platform, tmp_path / "greet", "me/greet")
    copy.commit(**slow("greet", "hello ", 2), stackDOTyml=stack("greet"))
    pushing = copy.start("push", copy.url, "main")
    wait_for(lambda: copy.runs() and copy.runs()[0].functions, "the build", 30)
    own_platform.kill_everything()
    pushing.communicate(timeout=30)
    own_platform.start()
    run = ended(copy, 1)
    assert (run.state, run.attempt) == ("succeeded", 2)
    assert copy.answer("greet") == "hello you"


def test_a_stop_is_no_attempt_and_runs_that_wait_keep_their_turn(own_platform: Platform, tmp_path: Path) -> None:
    copy = WorkingCopy(own_platform, tmp_path / "greet", "me/greet")
    other = WorkingCopy(own_platform, tmp_path / "other", "me/other")
    for each in (copy, other):
        each.commit(**slow("greet", f"{each.name} ", 2), stackDOTyml=stack("greet"))
        assert each.push("-o", "detach").code == 0
    wait_for(lambda: copy.runs()[0].functions, "the build", 30)
    assert other.runs()[0].state == "queued"  # one run of an owner at a time
    own_platform.stop()
    own_platform.start()
    assert [(run.state, run.attempt) for run in (ended(copy, 1), ended(copy, 2))] == [("succeeded", 1)] * 2
    assert (copy.answer("greet"), other.answer("greet")) == ("greet you", "other you")


def test_a_push_whose_client_leaves_goes_live(own_platform: Platform, tmp_path: Path) -> None:
    copy = WorkingCopy(own_platform, tmp_path / "greet", "me/greet")
    copy.commit(**slow("greet", "hello ", 1), stackDOTyml=stack("greet"))
    pushing = copy.start("push", copy.url, "main")
    wait_for(lambda: copy.runs() and copy.runs()[0].functions, "the build", 30)
    pushing.kill()
    pushing.communicate()
    assert ended(copy, 1).state == "succeeded"
    assert copy.answer("greet") == "hello you"


def test_a_push_that_was_cut_short_before_its_run_was_stored_is_found(own_platform: Platform, tmp_path: Path) -> None:
    copy = WorkingCopy(own_platform, tmp_path / "greet", "me/greet")
    copy.commit(**passing("greet", "old "), stackDOTyml=stack("greet"))
    assert copy.push().code == 0
    sha = copy.commit(**passing("greet", "new "))
    assert copy.push(refs=("main:moved",)).code == 0
    # What a kill between the two leaves: the branch has moved, and there is no run.
    bare = own_platform.data.git / "repositories" / "me" / "greet.git"
    os.truncate(bare / "refs" / "heads" / "main", 0)
    (bare / "refs" / "heads" / "main").write_text(f"{sha}\n")
    own_platform.kill("pipeline")
    wait_for(lambda: len(copy.runs()) == 2, "the run", 30)
    assert ended(copy, 2).push.sha == sha
    assert copy.answer("greet") == "new you"


def test_runs_are_cancelled_and_repeated(own_platform: Platform, tmp_path: Path) -> None:
    runs = own_platform.client.runs
    copy = WorkingCopy(own_platform, tmp_path / "greet", "me/greet")
    other = WorkingCopy(own_platform, tmp_path / "other", "me/other")
    for each in (copy, other):
        each.commit(**slow("greet", f"{each.name} ", 30), stackDOTyml=stack("greet"))
        assert each.push("-o", "detach").code == 0
    wait_for(lambda: any("its time" in line.text for line in runs.log(1)) or runs.show(1).functions, "the build", 30)
    assert (runs.cancel(2).state, runs.cancel(1).state) == ("cancelled", "cancelled")
    with pytest.raises(Conflict):
        runs.cancel(1)
    with pytest.raises(NotFound):
        own_platform.client.function(copy.service("greet"))
    wait_for(lambda: not list(own_platform.data.builds.glob("run-*")), "the end of the build")
    copy.commit(**passing("greet", "hello "))
    assert copy.push().code == 0
    again = runs.retry(3)
    assert (again.retry_of, ended(copy, again.id).functions[0].state) == (3, "unchanged")
    assert ended(copy, runs.retry(1).id).state == "superseded"  # its commit is not the branch's any more
    with pytest.raises(NotFound):
        runs.show(99)


def test_the_pipeline_ends_when_nobody_wants_it_and_is_there_when_somebody_does(
    make_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    platform = make_platform(flags=("--git-idle", "500ms"))
    assert "pipeline" not in platform.pids()
    copy = WorkingCopy(platform, tmp_path / "greet", "me/greet")
    copy.commit(**passing("greet", "one "), stackDOTyml=stack("greet"))
    assert copy.push().code == 0
    wait_for(lambda: "pipeline" not in platform.pids(), "the end of the pipeline")
    copy.commit(**passing("greet", "two "))
    assert copy.push().code == 0
    assert [run.state for run in copy.runs()] == ["succeeded"] * 2
    assert copy.answer("greet") == "two you"
    wait_for(lambda: "pipeline" not in platform.pids(), "the end of the pipeline")
    assert "starting it again" not in platform.log


def test_a_push_is_live_at_its_owners_host_and_another_repository_cannot_take_it(
    make_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    platform = make_platform(flags=("--domain", "faas.localhost"))
    copy = WorkingCopy(platform, tmp_path / "greet", "Me/greet")
    copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    pushed = copy.push()
    address = f"https://me.faas.localhost:{platform.https[1]}/greet"
    assert f"greet: live at {address}" in pushed.lines
    assert copy.runs()[0].functions[0].url == address
    host = {"Host": "me.faas.localhost"}
    assert platform.request("POST", "/greet", b"you", host).text == "hello you"
    other = WorkingCopy(platform, tmp_path / "other", "me/other")
    other.commit(**passing("greet", "mine "), stackDOTyml=stack("greet"))
    refused = other.push("-o", "wait")
    assert refused.code == 1 and "greet--greet--me" in refused.said
    assert platform.request("POST", "/greet", b"you", host).text == "hello you"


def test_without_a_broker_a_push_says_why_it_cannot_be_taken(
    make_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    platform = make_platform(flags=("--no-async",))
    copy = WorkingCopy(platform, tmp_path / "greet", "me/greet")
    copy.commit(**passing("greet", "one "), stackDOTyml=stack("greet"))
    refused = copy.push()
    assert refused.code == 128 and "not found" in refused.said
    with pytest.raises(NotFound, match="start without --no-git and --no-async"):
        copy.runs()


def test_the_walk_through_of_the_readme(own_platform: Platform, tmp_path: Path) -> None:
    """As a person does it: `stoker remote add`, `git push stoker main`, and the credentials come by themselves."""
    copy = WorkingCopy(own_platform, tmp_path / "greet", "me/unused")
    copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "stoker").write_text(f'#!/bin/sh\nexec {sys.executable} -m stoker_cli "$@"\n')
    (folder / "stoker").chmod(0o755)
    environment = own_platform.environment | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "OPENFAAS_URL": own_platform.https_url.replace("127.0.0.1", "localhost"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "USER": "Ann.Other",
        "LOGNAME": "Ann.Other",
    }

    def run(*command: str, code: int = 0, folder: Path = copy.folder) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        print(done.stdout, done.stderr)
        assert done.returncode == code
        return done.stdout + done.stderr

    assert "make one by `git init -b main`" in run("stoker", "remote", "add", code=1, folder=folder)
    for _ in range(2):
        assert "Now: git push stoker main" in run("stoker", "remote", "add")
    assert "has a remote stoker already" in run("stoker", "remote", "add", "me/other", code=1)
    assert "greet: live at" in run("git", "push", "stoker", "main")
    assert own_platform.call("greet--greet--ann-other", b"you").text == "hello you"
    assert "ann-other/greet" in run("stoker", "remote", "list")
    assert "succeeded" in run("stoker", "runs", "list")
    assert "greet: deployed" in run("stoker", "runs", "show", "1")
    assert "[greet] 1 passed" in run("stoker", "runs", "logs", "1")
    assert "succeeded" in run("stoker", "runs", "retry", "1", "--follow")
    assert "removed" in run("stoker", "remote", "remove", "ann-other/greet")
    assert own_platform.call("greet--greet--ann-other").status == 404
    password = own_platform.data.password.read_text().strip()
    assert password not in (copy.folder / ".git" / "config").read_text()
