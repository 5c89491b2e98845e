"""A push to GitHub becomes a tested, running function, and the commit shows what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from github_server import GitHubServer, Repository
from running_platform import Platform, wait_for
from working_copy import handler, passing, stack

from stoker_sdk.origin import check_origin
from stoker_sdk.runs import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHubServer]:
    server = GitHubServer(tmp_path_factory.mktemp("github"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def connected(github: GitHubServer, platform: Platform) -> Iterator[Platform]:
    """A platform that is connected as an App, for all tests of this file."""
    one = Platform(like=platform, flags=github.app_flags)
    try:
        yield one.start()
    finally:
        print(one.log)
        one.delete()


@pytest.fixture
def repository(github: GitHubServer, request: pytest.FixtureRequest) -> Repository:
    owner = "Ada-" + request.node.name.replace("_", "-").removeprefix("test-")[:30].strip("-")
    return github.create(f"{owner}/Greet")


def service(repository: Repository, function: str, pull: int = 0) -> str:
    return check_origin(repository.owner, repository.name, function, pull=pull).name


def answer(platform: Platform, repository: Repository, function: str = "greet", pull: int = 0) -> str:
    return platform.call(service(repository, function, pull), b"you").text


def runs_of(platform: Platform, repository: Repository) -> list[Run]:
    """The newest first."""
    return platform.client.runs.list_runs(owner=repository.owner, repository=repository.name)


def ended(platform: Platform, repository: Repository, count: int = 1) -> Run:
    """The newest run, when there are so many and all have ended."""

    def all_ended() -> Run | None:
        runs = runs_of(platform, repository)
        return runs[0] if len(runs) >= count and not any(run.is_open for run in runs) else None

    return wait_for(all_ended, f"the end of run {count}", 60)


def shown(github: GitHubServer, repository: Repository, sha: str, context: str = "stoker") -> dict[str, Any]:
    """The check when it has an end."""

    def completed() -> dict[str, Any] | None:
        check = github.statuses(repository.full_name, sha).get(context)
        return check if check and check["status"] == "completed" else None

    return wait_for(completed, f"the verdict on {sha[:7]}")


def test_a_webhook_alone_takes_a_repository_to_a_live_function(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    sha = repository.commit("Say hello", **passing("greet", "hello "), stackDOTyml=stack("greet"))
    taken = github.push(connected, repository)
    assert taken.status == 202, taken.text
    run = ended(connected, repository)
    assert (run.state, run.push.subject, run.push.by) == ("succeeded", "Say hello", "ada")
    assert answer(connected, repository) == "hello you"
    whole, greet = shown(github, repository, sha), shown(github, repository, sha, "stoker/greet")
    assert whole["history"][0][0] in ("queued", "in_progress") and whole["conclusion"] == "success"
    assert greet["conclusion"] == "success"
    assert greet["details_url"].endswith(f"/function/{service(repository, 'greet')}")
    assert "greet" in whole["output"]["text"] and "ghs_" not in str(whole)


def test_a_broken_test_is_named_below_the_commit_and_the_old_version_answers(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    repository.commit(**passing("greet", "old "), stackDOTyml=stack("greet"))
    github.push(connected, repository)
    ended(connected, repository)
    sha = repository.commit(greet__handlerDOTpy=handler("broken "))
    github.push(connected, repository)
    assert ended(connected, repository, 2).state == "failed"
    check = shown(github, repository, sha, "stoker/greet")
    assert check["conclusion"] == "failure"
    assert check["output"]["title"] == "test failed: handler_test.py::test_it_answers"
    assert "/ui/runs/" in check["details_url"]
    assert "assert" in check["output"]["text"]
    assert answer(connected, repository) == "old you"
