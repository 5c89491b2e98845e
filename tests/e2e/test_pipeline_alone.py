"""`stoker pipeline`, and a platform that sends pushes to it: they share a broker, a password and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
from own_nats import OwnNats
from running_pipeline import RunningPipeline, free_port
from running_platform import Platform, wait_for
from working_copy import WorkingCopy, handler, passing, stack

from stoker_sdk.data_dir import DataDir
from stoker_sdk.github_app import check_key

pytestmark = pytest.mark.slow

SLOW_TEST = "import time\n\ndef test_it_takes_its_time():\n    time.sleep(3)\n"


@dataclass(frozen=True)
class Parts:
    platform: Platform
    pipeline: RunningPipeline


@pytest.fixture(scope="module")
def parts(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    nats = OwnNats(tmp_path_factory.mktemp("nats")).start()
    port = free_port()
    one = Platform(like=platform, flags=("--nats", nats.url, "--pipeline", f"http://127.0.0.1:{port}"))
    try:
        one.start()
        with RunningPipeline(port, nats.url, one, "--public-url", "https://functions.example.org") as pipeline:
            yield Parts(one, pipeline)
    finally:
        print(one.log)
        one.delete()
        nats.stop()


@pytest.fixture
def copy(parts: Parts, tmp_path: Path, request: pytest.FixtureRequest) -> WorkingCopy:
    owner = request.node.name.removeprefix("test_").replace("_", "-")[:30].strip("-")
    return WorkingCopy(parts.platform, tmp_path / "greet", f"{owner}/greet")


def test_a_push_goes_through_the_gateway_to_a_live_function(parts: Parts, copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    pushed = copy.push()
    assert pushed.code == 0
    assert f"greet: live at https://functions.example.org/function/{copy.service('greet')}" in pushed.lines
    assert copy.answer("greet") == "hello you"
    assert copy.runs()[0].state == "succeeded"
    assert "pipeline" not in parts.platform.pids(), "one of its own is not started"


def test_an_app_of_github_can_be_stored_with_it(parts: Parts) -> None:
    data = DataDir(parts.pipeline.folder / "data")
    check_key(data)
    assert data.key.stat().st_mode & 0o777 == 0o600


def test_nobody_gets_past_the_password(parts: Parts, copy: WorkingCopy) -> None:
    asked = ("/git/a/b/info/refs?service=git-upload-pack", "/system/runs", "/system/repositories", "/system/seal-key")
    assert {parts.platform.request("GET", path, b"").status for path in asked} == {401}
    assert parts.platform.request("POST", "/github/webhook", b"{}").status in (401, 404)


def test_pages_show_runs(parts: Parts, copy: WorkingCopy) -> None:
    copy.commit("Say hello", **passing("greet", "hello "), stackDOTyml=stack("greet"))
    copy.push()
    cookie = _signed_in(parts.platform)
    page = parts.platform.request("GET", f"/ui/runs/{copy.runs()[0].id}", b"", {"Cookie": cookie})
    assert page.status == 200 and "Say hello" in page.text and "live at" in page.text


def test_while_it_is_away_calls_go_on_and_pushes_are_told_to_come_again(parts: Parts, copy: WorkingCopy) -> None:
    copy.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    copy.push()
    parts.pipeline.stop()
    try:
        away = parts.platform.request("GET", "/system/runs", b"", parts.platform.authorization)
        assert (away.status, away.headers["retry-after"]) == (503, "1")
        assert away.text.startswith("the git pipeline cannot be reached now")
        assert copy.answer("greet") == "hello you"
        copy.commit(**passing("greet", "hi "))
        assert copy.push().code != 0
    finally:
        parts.pipeline.start()
    assert copy.push().code == 0
    assert copy.answer("greet") == "hi you"


def test_a_second_one_that_waits_for_the_folder_ends_when_it_is_told_to(parts: Parts) -> None:
    waiting = parts.pipeline.spawn()
    wait_for(lambda: "another server has the data folder: waiting" in parts.pipeline.log, "its word")
    waiting.terminate()
    assert waiting.wait(5) == 1
    assert "is in use by another server" in parts.pipeline.log


def test_a_run_whose_pipeline_is_killed_goes_on_in_the_next_one(parts: Parts, copy: WorkingCopy) -> None:
    files = {"greet__handlerDOTpy": handler("slow "), "greet__handler_testDOTpy": SLOW_TEST}
    copy.commit(**files, stackDOTyml=stack("greet"))
    pushing = copy.start("push", copy.url, "main")
    wait_for(lambda: any(each.state == "building" for run in copy.runs() for each in run.functions), "the build")
    next_one = parts.pipeline.spawn()  # as when a pod is replaced: there are two for a moment
    try:
        assert len(copy.runs()) == 1
        parts.pipeline.kill()
        pushing.communicate(timeout=60)
        parts.pipeline.wait_until_it_answers()
        wait_for(lambda: not copy.runs()[0].is_open, "the end of the run", 60)
    finally:
        next_one.terminate()
        assert next_one.wait(30) == 0
        parts.pipeline.start()
    run = copy.runs()[0]
    assert (run.state, run.attempt) == ("succeeded", 2)
    assert copy.answer("greet") == "slow you"


def _signed_in(platform: Platform) -> str:
    """The cookies of a session of the pages."""
    form = platform.request("GET", "/ui/sign-in", b"")
    (token,) = re.findall(r'name="token" value="([^"]+)"', form.text)
    first = form.headers["set-cookie"].partition(";")[0]
    fields = {"token": token, "user": "admin", "password": platform.data.password.read_text().strip(), "next": ""}
    headers = {"Cookie": first, "Content-Type": "application/x-www-form-urlencoded", "Origin": platform.http_url}
    answer = platform.request("POST", "/ui/sign-in", urlencode(fields).encode(), headers)
    assert answer.status == 303, answer.text
    return answer.headers["set-cookie"].partition(";")[0]
