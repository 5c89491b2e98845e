"""GitHub is away, or asks to be left alone, or we are killed: what a commit shows in the end is true."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from github_runs import answer, ended, runs_of
from github_server import GitHubServer, Repository
from process_kills import ROLES, kill_while_a_push_goes
from running_platform import Platform, wait_for
from working_copy import handler, passing, stack

pytestmark = pytest.mark.slow

MakePlatform = Callable[..., Platform]


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHubServer]:
    server = GitHubServer(tmp_path / "github")
    yield server
    server.close()


@pytest.fixture
def repository(github: GitHubServer) -> Repository:
    return github.create("ada/greet")


def states(repository: Repository, sha: str, context: str = "stoker") -> list[str]:
    """All that was told with commit statuses, in order."""
    return [each["state"] for each in repository.statuses if (each["sha"], each["context"]) == (sha, context)]


def test_with_a_token_the_commit_gets_statuses(
    github: GitHubServer, repository: Repository, make_platform: MakePlatform
) -> None:
    platform = make_platform(flags=github.token_flags)
    sha = repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    github.push(platform, repository)
    assert ended(platform, repository).state == "succeeded"
    wait_for(lambda: states(repository, sha)[-1:] == ["success"], "the verdict")
    wait_for(lambda: states(repository, sha, "stoker/greet") == ["pending", "success"], "the function's verdict")
    assert states(repository, sha)[0] == "pending"
    last = github.statuses("ada/greet", sha)["stoker/greet"]
    assert last["target_url"].endswith("/function/greet--greet--ada")
    assert answer(platform, repository) == "hello you"

    broken = repository.commit(greet__handlerDOTpy=handler("broken "))
    github.push(platform, repository)
    ended(platform, repository, 2)
    wait_for(lambda: states(repository, broken)[-1:] == ["failure"], "the verdict")
    failed = github.statuses("ada/greet", broken)["stoker/greet"]
    assert failed["description"] == "test failed: handler_test.py::test_it_answers"

    sha = repository.commit(**passing("greet", "found "))  # and no webhook
    repository.upload()
    wait_for(lambda: runs_of(platform, repository)[0].push.sha == sha, "the run of a moved branch", 60)


def test_reports_wait_while_github_is_down_and_while_it_limits_us(
    github: GitHubServer, repository: Repository, make_platform: MakePlatform
) -> None:
    platform = make_platform(flags=github.token_flags)
    github.fault = lambda request: web.Response(status=502) if request.method == "POST" else None
    sha = repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    github.push(platform, repository)
    assert ended(platform, repository).state == "succeeded"
    assert answer(platform, repository) == "hello you"
    assert repository.statuses == []
    refused: list[float] = []

    def limit(request: web.Request) -> web.Response | None:
        if request.method != "POST":
            return None
        refused.append(time.monotonic())
        return web.Response(status=403, headers={"Retry-After": "3"}, text='{"message": "secondary rate limit"}')

    github.fault = limit
    wait_for(lambda: refused, "a report that is refused", 60)
    github.fault = None
    wait_for(lambda: states(repository, sha)[-1:] == ["success"], "the verdict", 60)
    assert time.monotonic() - refused[-1] >= 2.9
    assert len(refused) == 1
    assert states(repository, sha) == ["success"]  # nobody is told of what has passed


def test_a_run_and_its_reports_survive_the_pipelines_end(
    github: GitHubServer, repository: Repository, make_platform: MakePlatform
) -> None:
    platform = make_platform(flags=github.app_flags)
    slow = "import time\n\n\ndef test_it():\n    time.sleep(2)\n"
    sha = repository.commit(greet__handlerDOTpy=handler("hi "), greet__a_testDOTpy=slow, stackDOTyml=stack("greet"))
    github.push(platform, repository)
    wait_for(lambda: github.statuses("ada/greet", sha).get("stoker"), "the first word")
    platform.kill("pipeline")
    wait_for(lambda: ended(platform, repository).state == "succeeded", "the run's end", 60)

    github.fault = lambda request: web.Response(status=503) if "/check-runs" in request.path else None
    newer = repository.commit(**passing("greet", "hello "))
    github.push(platform, repository)
    assert ended(platform, repository, 2).state == "succeeded"
    platform.kill("pipeline")
    github.fault = None
    for commit in (sha, newer):
        wait_for(lambda: _all_have_ended(github, commit), f"the verdict on {commit[:7]}", 60)  # noqa: B023
    assert {each["conclusion"] for each in repository.checks} == {"success"}
    assert len(repository.checks) == 4  # none was made twice
    assert answer(platform, repository) == "hello you"


def test_an_app_without_its_permissions_is_told_which_ones(
    github: GitHubServer, repository: Repository, make_platform: MakePlatform
) -> None:
    platform = make_platform(flags=github.app_flags)
    github.granted -= {"checks"}
    sha = repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    github.push(platform, repository)
    run = ended(platform, repository)
    assert run.state == "failed" and "lacks permissions" in run.reason and "checks: write" in run.reason
    github.granted |= {"checks"}
    wait_for(lambda: _verdicts(github, sha) == {"failure"}, "the verdict, once it may be told", 60)
    platform.client.runs.retry(run.id)
    wait_for(lambda: _verdicts(github, sha) == {"success"}, "the verdict on another try", 60)


@pytest.mark.parametrize("way", ["app", "token"])
def test_kills_at_random_moments_leave_a_true_verdict_below_each_commit(
    github: GitHubServer, repository: Repository, make_platform: MakePlatform, way: str
) -> None:
    platform = make_platform(flags=github.app_flags if way == "app" else github.token_flags)
    seed = random.randrange(10**6)
    print(f"the moments are those of seed {seed}")
    moments, commits = random.Random(seed), []
    roles = [*ROLES, "pipeline"] if way == "app" else ["pipeline"] * 5
    moments.shuffle(roles)
    for number, role in enumerate(roles):
        commits.append(repository.commit(**passing("greet", f"{number} "), stackDOTyml=stack("greet")))
        github.push(platform, repository)  # it may be lost, too: then GitHub knows that it was not delivered
        print(role, kill_while_a_push_goes(platform, role, moments))
        platform.wait_until_it_answers()
    wait_for(lambda: _verdicts(github, commits[-1]) == {"success"}, "the verdict on the last commit", 100)
    wait_for(lambda: not any(run.is_open for run in runs_of(platform, repository)), "the end of all runs", 60)
    assert answer(platform, repository) == f"{len(roles) - 1} you"
    known = {run.push.sha for run in runs_of(platform, repository)}
    for sha in known:
        ends = {"success", "skipped", "error"}
        wait_for(lambda: len(_verdicts(github, sha)) > 0 and _verdicts(github, sha) <= ends, f"the end of {sha}", 60)  # noqa: B023
    assert all(each["status"] == "completed" for each in repository.checks if each["head_sha"] in known)
    names = [(each["external_id"], each["name"]) for each in repository.checks]
    assert len(names) == len(set(names))  # none was made twice


def test_who_is_not_on_the_list_starts_nothing_until_it_is_changed(
    github: GitHubServer, repository: Repository, make_platform: MakePlatform, tmp_path: Path
) -> None:
    owners = tmp_path / "owners"
    owners.write_text("eve\n")
    platform = make_platform(flags=(*github.token_flags, "--github-owners-file", str(owners)))
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    said = github.push(platform, repository)
    assert said.status == 202 and "ada is not on this platform's list" in said.text
    owners.write_text("# who may\nEve\nAda\n")
    repository.commit("again", READMEDOTmd="again")
    github.push(platform, repository)
    assert ended(platform, repository).state == "succeeded"
    assert len(runs_of(platform, repository)) == 1


def _verdicts(github: GitHubServer, sha: str) -> set[str]:
    """The last word of each context; of a check that has none, its status."""
    shown = github.statuses("ada/greet", sha).values()
    return {each.get("state") or each.get("conclusion") or each["status"] for each in shown}


def _all_have_ended(github: GitHubServer, sha: str) -> bool:
    shown = [github.statuses("ada/greet", sha).get(context) for context in ("stoker", "stoker/greet")]
    return all(each is not None and each["status"] == "completed" for each in shown)
