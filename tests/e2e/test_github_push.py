"""A push to GitHub becomes a tested, running function, and the commit shows what became of it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from github_runs import answer, ended, runs_of, service, shown
from github_server import SECRET, GitHubServer, Repository, sign
from running_platform import Platform, wait_for
from working_copy import handler, passing, stack

from stoker_sdk.errors import NotFound
from stoker_sdk.messages import Secret
from stoker_sdk.origin import OWNER, check_origin

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHubServer]:
    server = GitHubServer(tmp_path_factory.mktemp("github"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def connected(github: GitHubServer, platform: Platform) -> Iterator[Platform]:
    """A platform that is connected as an App, for all tests of this file."""
    one = Platform(like=platform, flags=(*github.app_flags, "--domain", "faas.localhost"))
    try:
        yield one.start()
    finally:
        print(one.log)
        one.delete()


@pytest.fixture
def repository(github: GitHubServer, request: pytest.FixtureRequest) -> Repository:
    owner = "Ada-" + request.node.name.replace("_", "-").removeprefix("test-")[:30].strip("-")
    return github.create(f"{owner}/Greet")


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
    assert greet["details_url"] == f"https://{repository.owner.lower()}.faas.localhost:{connected.https[1]}/greet"
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


def test_a_delivery_is_carried_out_once(github: GitHubServer, connected: Platform, repository: Repository) -> None:
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    repository.upload()
    payload = github.push_payload(repository)
    first = github.deliver(connected, "push", payload, guid="one")
    assert first.text.startswith("run ")
    again = [github.deliver(connected, "push", payload, guid=guid) for guid in ("one", "another", "one")]
    assert {(each.status, each.text) for each in again} == {(202, "this delivery was taken before: nothing is done\n")}
    ended(connected, repository)
    assert github.deliver(connected, "push", payload, guid="one").status == 202
    assert len(runs_of(connected, repository)) == 1


def test_an_older_push_never_replaces_a_newer_one(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    repository.commit(**passing("greet", "old "), stackDOTyml=stack("greet"))
    repository.upload()
    old = github.push_payload(repository)
    sha = repository.commit(**passing("greet", "new "))
    github.push(connected, repository)
    github.deliver(connected, "push", old)  # what came first arrives last
    ended(connected, repository, 2)
    wait_for(lambda: runs_of(connected, repository)[0].push.sha == sha, "a run of the newest commit", 60)
    ended(connected, repository)
    assert answer(connected, repository) == "new you"
    assert shown(github, repository, sha)["conclusion"] == "success"
    superseded = shown(github, repository, old["after"])
    assert (superseded["conclusion"], superseded["output"]["title"][:11]) == ("skipped", "superseded:")


def test_webhooks_are_answered_at_once_while_runs_go(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    slow = "import time\n\n\ndef test_it():\n    time.sleep(3)\n"
    repository.commit(greet__handlerDOTpy=handler("x"), greet__handler_testDOTpy=slow, stackDOTyml=stack("greet"))
    github.push(connected, repository)
    took = []
    for _ in range(5):
        begun = time.monotonic()
        assert github.deliver(connected, "ping", {"zen": "x"}).status == 202
        took.append(time.monotonic() - begun)
    assert runs_of(connected, repository)[0].is_open
    assert max(took) < 1.0, took
    ended(connected, repository)


def test_the_button_re_run_tries_again(github: GitHubServer, connected: Platform, repository: Repository) -> None:
    flaky = "import pathlib\n\n\ndef test_it():\n    assert False\n"
    sha = repository.commit(greet__handlerDOTpy=handler("x"), greet__a_testDOTpy=flaky, stackDOTyml=stack("greet"))
    github.push(connected, repository)
    assert ended(connected, repository).state == "failed"
    check = {"head_sha": sha}
    payload = {"action": "rerequested", "repository": repository.json(), "check_run": check}
    assert github.deliver(connected, "check_run", payload).status == 202
    again = ended(connected, repository, 2)
    assert (again.push.sha, again.retry_of > 0) == (sha, True)
    wait_for(
        lambda: github.statuses(repository.full_name, sha)["stoker"]["external_id"] == f"{again.id}:", "its verdict"
    )


def test_what_was_uninstalled_is_removed(github: GitHubServer, connected: Platform, repository: Repository) -> None:
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    github.push(connected, repository)
    ended(connected, repository)
    repository.installed = False
    github.tokens = {github.token: github.tokens[github.token]}  # GitHub revokes them
    payload = {"action": "deleted", "installation": {"account": {"login": repository.owner}}}
    assert github.deliver(connected, "installation", payload).status == 202
    assert ended(connected, repository, 2).state == "succeeded"
    with pytest.raises(NotFound):
        connected.client.function(service(repository, "greet"))


def test_a_renamed_repository_is_live_under_its_new_name_only(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    github.push(connected, repository)
    ended(connected, repository)
    old = service(repository, "greet")
    github.rename(repository, f"{repository.owner}/Salute")
    changes = {"repository": {"name": {"from": "Greet"}}}
    github.deliver(connected, "repository", {"action": "renamed", "repository": repository.json(), "changes": changes})
    wait_for(lambda: runs_of(connected, repository), "a run of the new name", 60)
    assert ended(connected, repository).state == "succeeded"
    assert answer(connected, repository) == "hello you"
    wait_for(lambda: not any(each.name == old for each in connected.client.functions()), "the old name's removal", 60)


def test_a_push_whose_webhook_was_lost_is_found(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    repository.upload()
    github.lose("push", github.push_payload(repository))  # also the first push ever
    wait_for(lambda: runs_of(connected, repository), "the run of a lost webhook", 60)
    assert ended(connected, repository).state == "succeeded"
    sha = repository.commit(**passing("greet", "hi "))
    repository.upload()  # and GitHub knows of no delivery
    wait_for(lambda: runs_of(connected, repository)[0].push.sha == sha, "the run of a moved branch", 60)
    ended(connected, repository)
    assert answer(connected, repository) == "hi you"


HOSTILE = {
    "no signature": ("", 401),
    "another secret's": (sign(b"{}", "another"), 401),
    "not hexadecimal": ("sha256=" + "z" * 64, 401),
    "SHA-1 in its place": ("sha1=" + "0" * 40, 401),
    "not ASCII": ("sha256=\xe9", 401),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_without_the_right_signature_nothing_is_read(github: GitHubServer, connected: Platform, case: str) -> None:
    signature, status = HOSTILE[case]
    asked = len(github.requests)
    answered = github.deliver(connected, "push", b"this would not even be JSON", signature=signature)
    assert (answered.status, "X-Hub-Signature-256" in answered.text) == (status, True)
    assert [path for _, path, _ in github.requests[asked:] if "/hook/" not in path and "/commits/" not in path] == []


def test_one_changed_byte_is_refused(github: GitHubServer, connected: Platform, repository: Repository) -> None:
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    repository.upload()
    body = json.dumps(github.push_payload(repository)).encode()
    changed = body.replace(b'"main"', b'"Main"', 1)
    assert github.deliver(connected, "push", changed, signature=sign(body)).status == 401
    assert runs_of(connected, repository) == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_30_megabytes_is_refused_before_it_is_read(connected: Platform, chunked: bool) -> None:
    """The connection is closed: what is left of the body is not waited for."""
    with socket.create_connection(connected.http, timeout=30) as raw:
        size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {30 << 20}"
        raw.sendall(f"POST /github/webhook HTTP/1.1\r\nHost: x\r\n{size}\r\n\r\n".encode())
        chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n" if chunked else b""
        try:
            for _ in range(30 if chunked else 0):
                raw.sendall(chunk)
        except ConnectionError:
            pass
        assert b" 413 " in raw.recv(4096).partition(b"\r\n")[0]


def test_hostile_payloads_with_a_good_signature_start_nothing(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    repository.upload()
    before, good = len(connected.client.runs.list_runs()), github.push_payload(repository)
    named = {**repository.json(), "name": "--upload-pack=id", "full_name": f"{repository.owner}/--upload-pack=id"}
    other = {**repository.json(), "full_name": "eve/greet"}
    for payload in (
        b'{"repository":' * 200_000,
        b"[]",
        {**good, "after": "--upload-pack=touch /tmp/taken"},
        {**good, "after": 7},
        {**good, "ref": {"a": 1}},
        {**good, "repository": named},
        {**good, "repository": other},
        {**good, "ref": "refs/heads/--help", "repository": {**repository.json(), "default_branch": "--help"}},
    ):
        refused = github.deliver(connected, "push", payload)
        assert refused.status == 400, refused.text
    assert len(connected.client.runs.list_runs()) == before
    assert not Path("/tmp/taken").exists()


def test_a_private_repository_is_cloned_from_where_we_know_it_to_be(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    """Every webhook of these tests lies about that; and its token opens this repository alone."""
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    github.push(connected, repository)
    assert ended(connected, repository).state == "succeeded"
    fetched = [path for verb, path, _ in github.requests if verb == "POST" and path.endswith("git-upload-pack")]
    assert f"/{repository.full_name}.git/git-upload-pack" in fetched
    assert not Path("/tmp/taken").exists()
    made = [token for token in github.tokens.values() if token.repositories is not None]
    assert made and all(len(token.repositories or ()) == 1 for token in made)
    assert {"contents": "read", "metadata": "read"} in [dict(token.permissions) for token in made]
    lines = connected.log + str(connected.client.runs.list_runs())
    assert not any(text in lines for text in [*github.tokens, SECRET])


def test_a_pull_request_has_a_preview_of_what_it_changes(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    repository.commit(**passing("greet", "hello "), **passing("wave", "bye "), stackDOTyml=stack("greet", "wave"))
    github.push(connected, repository)
    ended(connected, repository)
    repository.git("checkout", "--quiet", "-b", "feature")
    scheduled = stack("greet", "wave").replace("    image: greet\n", '    image: greet\n    schedule: "* * * * *"\n')
    sha = repository.commit(**passing("greet", "preview "), stackDOTyml=scheduled)
    number = github.open_pull(repository, "feature")
    github.deliver(connected, "pull_request", github.pull_payload(repository, number, "opened"))
    run = ended(connected, repository, 2)
    assert {each.name: each.state for each in run.functions} == {"greet": "deployed", "wave": "unchanged"}
    assert answer(connected, repository, pull=number) == "preview you"
    assert answer(connected, repository) == "hello you"
    annotations = connected.status(service(repository, "greet", number)).annotations or {}
    assert "stoker.dev/pull" in annotations and "stoker.dev/schedule" not in annotations
    assert shown(github, repository, sha, "stoker preview/greet")["conclusion"] == "success"
    comment = wait_for(lambda: _comment(repository, "succeeded"), "the comment")
    host = check_origin(repository.owner, repository.name, "greet", pull=number).host_label + ".faas.localhost"
    assert f"<https://{host}:{connected.https[1]}/greet>" in comment["body"]
    assert connected.request("POST", "/greet", b"you", {"Host": host}).text == "preview you"
    assert "| `wave` | not changed by this pull request |" in comment["body"]

    repository.commit(**passing("greet", "hello "))  # as it is live
    github.open_pull(repository, "feature")
    repository.pulls = {number: {**repository.pulls[number + 1], "number": number}}
    github.deliver(connected, "pull_request", github.pull_payload(repository, number, "synchronize"))
    run = ended(connected, repository, 3)
    assert {each.name: each.state for each in run.functions} == {"greet": "removed", "wave": "unchanged"}

    repository.pulls[number]["state"] = "closed"
    github.deliver(connected, "pull_request", github.pull_payload(repository, number, "closed"))
    assert ended(connected, repository, 4).state == "succeeded"
    wait_for(lambda: _comment(repository, "is removed"), "the comment's last edit")
    assert len(repository.comments) == 1
    assert service(repository, "greet", number) not in {each.name for each in connected.client.functions()}
    assert answer(connected, repository) == "hello you"


def test_many_pull_requests_leave_nothing_behind(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    count = int(os.environ.get("STOKER_PULLS", "4"))
    repository.commit(**passing("greet", "hello "), stackDOTyml=stack("greet"))
    github.push(connected, repository)
    ended(connected, repository)
    for number in range(1, count + 1):
        repository.git("checkout", "--quiet", "-b", f"change-{number}", "main")
        repository.commit(**passing("greet", f"{number} "))
        assert github.open_pull(repository, f"change-{number}") == number
        github.deliver(connected, "pull_request", github.pull_payload(repository, number, "opened"))
    ended(connected, repository, 1 + count)
    assert [answer(connected, repository, pull=number) for number in (1, count)] == ["1 you", f"{count} you"]
    for number, pull in repository.pulls.items():
        pull["state"] = "closed"
        github.deliver(connected, "pull_request", github.pull_payload(repository, number, "closed"))
    ended(connected, repository, 1 + 2 * count)
    wait_for(lambda: sum("is removed" in each["body"] for each in repository.comments) == count, "the last edits", 60)
    owner = repository.owner.lower()
    left = [each.name for each in connected.client.functions() if (each.annotations or {}).get(OWNER) == owner]
    assert left == [service(repository, "greet")]
    assert answer(connected, repository) == "hello you"


def test_a_forks_pull_request_is_built_when_it_is_allowed_and_has_no_secret(
    github: GitHubServer, connected: Platform, repository: Repository
) -> None:
    secret = f"{repository.owner.lower()}.key"
    connected.client.create_secret(Secret(secret, value="value"))
    using = stack("greet").replace("    image: greet\n", f"    image: greet\n    secrets: [{secret}]\n")
    repository.commit(**passing("greet", "hello "), stackDOTyml=using)
    github.push(connected, repository)
    assert ended(connected, repository).state == "succeeded"
    repository.git("checkout", "--quiet", "-b", "theirs")
    reading = (
        "import os\n\n\ndef handle(req):\n    return str(os.path.exists('/var/openfaas/secrets/" + secret + "'))\n"
    )
    repository.commit(greet__handlerDOTpy=reading, greet__handler_testDOTpy="def test_it():\n    pass\n")
    number = github.open_pull(repository, "theirs", fork=True)
    for action in ("opened", "synchronize"):
        answered = github.deliver(connected, "pull_request", github.pull_payload(repository, number, action))
        assert (answered.status, answered.text) == (202, "pull_request: nothing to do\n")
    labeled = github.pull_payload(repository, number, "labeled", label={"name": "stoker preview"})
    assert github.deliver(connected, "pull_request", labeled).text.startswith("run ")
    run = ended(connected, repository, 2)
    assert run.state == "succeeded", run
    assert not connected.status(service(repository, "greet", number)).secrets
    assert connected.status(service(repository, "greet")).secrets == [secret]


def _comment(repository: Repository, text: str) -> dict[str, Any] | None:
    return next((each for each in repository.comments if text in each["body"]), None)
