"""A push to GitLab becomes a tested, running function, and the commit shows what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from github_runs import answer, ended, runs_of
from gitlab_server import GitLabServer
from running_platform import Platform, wait_for
from working_copy import handler, passing, stack

pytestmark = pytest.mark.slow


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLabServer]:
    server = GitLabServer(tmp_path / "gitlab")
    yield server
    server.close()


def test_hooks_statuses_and_lost_hooks(gitlab: GitLabServer, make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=gitlab.flags)
    project = gitlab.create("ada/greet")
    sha = project.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    project.upload()
    hook = gitlab.hook(project)
    assert gitlab.send(platform, hook, token="wrong").status == 401
    assert gitlab.send(platform, hook, token="").status == 401
    for hostile in ([], {**hook, "after": "--upload-pack=id"}, {**hook, "project": {**hook["project"], "id": "x"}}):
        assert gitlab.send(platform, hostile).status == 400
    nested = {**hook["project"], "path_with_namespace": "ada/group/greet"}
    assert gitlab.send(platform, {**hook, "project": nested}).status == 400
    assert gitlab.send(platform, hook, event="Tag Push Hook").text == "only push hooks start something\n"
    assert gitlab.send(platform, {**hook, "ref": "refs/heads/other"}).text == "nothing to do\n"
    assert runs_of(platform, project) == []

    first = gitlab.send(platform, hook)
    assert (first.status, gitlab.send(platform, hook).text) == (202, first.text)
    run = ended(platform, project)
    assert (run.state, run.push.by, run.push.subject) == ("succeeded", "ada", "Say hello")
    assert answer(platform, project) == "hello you"
    wait_for(lambda: gitlab.states(sha)[-1:] == ["success"], "the verdict")
    assert gitlab.states(sha)[0] in ("pending", "running")
    shown = [fields for _, _, fields in gitlab.posted if fields["name"] == "stoker/greet"][-1]
    assert (shown["state"], shown["target_url"][-27:]) == ("success", "/function/greet--greet--ada")

    broken = project.commit(greet__handlerDOTpy=handler("broken "))
    project.upload()  # and no hook
    wait_for(lambda: gitlab.states(broken, "stoker/greet")[-1:] == ["failed"], "the verdict of a lost hook", 60)
    failed = [fields for _, sha, fields in gitlab.posted if (sha, fields["name"]) == (broken, "stoker/greet")][-1]
    assert failed["description"] == "test failed: handler_test.py::test_it_answers"
    assert answer(platform, project) == "hello you"
    again = project.commit(**passing("greet", "again "))
    project.upload()
    gitlab.send(platform, gitlab.hook(project))
    wait_for(lambda: gitlab.states(again, "stoker/greet"), "the first word on the function", 60)
    platform.kill("pipeline")
    later = project.commit(**passing("greet", "later "))
    project.upload()
    wait_for(lambda: gitlab.states(later)[-1:] == ["success"], "the verdict on the last commit", 100)
    for sha in (again, later):
        wait_for(lambda: gitlab.states(sha, "stoker/greet")[-1] in ("success", "canceled"), "an end", 60)  # noqa: B023
    assert not any(secret in platform.log for secret in (gitlab.token, "secret of the tests"))
