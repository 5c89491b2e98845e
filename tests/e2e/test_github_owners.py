"""A login that somebody gave up, and another one took: functions, hosts, secrets and removals stay with the account."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from github_runs import answer, ended, service, shown
from github_server import GitHubServer
from gitlab_server import GitLabServer
from running_platform import PYTHONPATH, Platform
from working_copy import passing, stack

from stoker_sdk.errors import NotFound
from stoker_sdk.messages import Secret

pytestmark = pytest.mark.slow

MakePlatform = Callable[..., Platform]


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHubServer]:
    server = GitHubServer(tmp_path / "github")
    yield server
    server.close()


def owners(platform: Platform, *arguments: str) -> tuple[int, str]:
    """`stoker owners …`: exit code, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "stoker_cli", "owners", *arguments, "--gateway", platform.http_url],
        env=platform.environment | {"PATH": os.environ["PATH"], "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_who_takes_a_login_over_gets_nothing_of_what_was_there(
    github: GitHubServer, make_platform: MakePlatform
) -> None:
    platform = make_platform(flags=github.app_flags)
    first = github.create("ada/greet", owner_id=1)
    first.commit(**passing("greet", "first "), stackDOTyml=stack("greet"))
    github.push(platform, first)
    assert ended(platform, first).account == "github 1"
    assert (platform.status(service(first, "greet")).labels or {})["com.openfaas.cloud.git-owner-id"] == "1"
    platform.client.create_secret(Secret("ada.key", value="the first one's"))

    # Ada is called Lovelace now, of which nobody told us, and somebody else is Ada.
    github.rename(first, "lovelace/greet")
    del github.renamed["ada/greet"]
    second = github.create("Ada/Greet", owner_id=2)
    stealing = stack("greet", "new").replace("    image: greet\n", "    image: greet\n    secrets: [ada.key]\n")
    sha = second.commit(**passing("greet", "second "), **passing("new", "second "), stackDOTyml=stealing)
    github.push(platform, second)
    refused = ended(platform, second, 2)
    assert refused.state == "failed" and "the name Ada belongs to another account" in refused.reason
    assert "the name Ada belongs to another account" in shown(github, second, sha)["output"]["title"]
    assert answer(platform, second) == "first you"
    with pytest.raises(NotFound):
        platform.client.function(service(second, "new"))

    github.delete(second)
    gone = {"action": "deleted", "repository": second.json()}
    assert github.deliver(platform, "repository", gone).status == 202
    account = {"account": {"login": "Ada", "id": 2}}
    assert github.deliver(platform, "installation", {"action": "deleted", "installation": account}).status == 202
    ended(platform, second, 2)
    assert answer(platform, second) == "first you"

    assert owners(platform, "list") == (0, "Owner  Forge   Account\nada    github  1\n")
    code, said = owners(platform, "release", "Ada")
    assert code == 1 and f"function {service(second, 'greet')}, secret ada.key" in said
    platform.client.remove(service(second, "greet"))
    platform.client.remove_secret("ada.key")
    assert owners(platform, "release", "Ada") == (0, "ada is free: it was the account github 1's\n")
    third = github.create("ada/again", owner_id=2)
    third.commit(**passing("greet", "third "), stackDOTyml=stack("greet"))
    github.push(platform, third)
    assert ended(platform, third).account == "github 2"
    assert answer(platform, third) == "third you"


def test_two_forges_do_not_share_an_owner(github: GitHubServer, make_platform: MakePlatform, tmp_path: Path) -> None:
    gitlab = GitLabServer(tmp_path / "gitlab")
    try:
        platform = make_platform(flags=(*github.app_flags, *gitlab.flags))
        project = gitlab.create("ada/tools", owner_id=7)
        project.commit(**passing("greet", "lab "), stackDOTyml=stack("greet"))
        project.upload()
        assert gitlab.send(platform, gitlab.hook(project)).status == 202
        assert (ended(platform, project).state, ended(platform, project).account) == ("succeeded", "gitlab 7")
        repository = github.create("ada/shop", owner_id=7)
        repository.commit(**passing("greet", "hub "), stackDOTyml=stack("greet"))
        github.push(platform, repository)
        refused = ended(platform, repository)
        assert refused.state == "failed" and "(gitlab 7; this is github 7)" in refused.reason
        assert answer(platform, project) == "lab you"
    finally:
        gitlab.close()


def test_what_is_uninstalled_goes_also_when_nobody_lets_us_fetch_it_any_more(
    github: GitHubServer, make_platform: MakePlatform
) -> None:
    platform = make_platform(flags=github.app_flags)
    repository = github.create("ada/greet")
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    github.push(platform, repository)
    assert ended(platform, repository).state == "succeeded"
    platform.kill("pipeline")  # it forgets its tokens, as it does after an hour
    repository.installed = False
    github.tokens = {github.token: github.tokens[github.token]}
    payload = {"action": "deleted", "installation": {"account": {"login": "ada", "id": 1}}}
    assert github.deliver(platform, "installation", payload).status == 202
    assert ended(platform, repository, 2).state == "succeeded"
    with pytest.raises(NotFound):
        platform.client.function(service(repository, "greet"))
