"""What webhooks ask for, and which are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stoker_builder.pipeline.github.events import (
    ALLOW_LABEL,
    Accept,
    Connect,
    Deed,
    Disconnect,
    Known,
    LeaveBranch,
    Rerun,
    read_event,
)
from stoker_builder.pipeline.github.signature import check_signature
from stoker_sdk.errors import BadInput, Unauthorized
from stoker_sdk.runs import GONE

SHA = "3f2a1b0" + "0" * 32 + "1"
REPOSITORY: dict[str, Any] = {
    "id": 7,
    "name": "Greet",
    "full_name": "Ada/Greet",
    "default_branch": "main",
    "owner": {"login": "Ada", "id": 3},
    "clone_url": "ext::sh -c id",
}
KNOWN = Known(7, "Ada", "Greet", "main", 3)


def push(**changes: Any) -> dict[str, Any]:
    event = {"ref": "refs/heads/main", "after": SHA, "repository": REPOSITORY, "pusher": {"name": "ada"}}
    return {**event, "head_commit": {"message": "Say hello\n\nmore"}, **changes}


def pull(action: str, *, fork: bool = False, **changes: Any) -> dict[str, Any]:
    head = {"sha": SHA, "repo": {**REPOSITORY, "id": 8 if fork else 7}}
    event = {"action": action, "number": 5, "pull_request": {"head": head, "title": "t", "user": {"login": "bob"}}}
    return {**event, "repository": REPOSITORY, **changes}


def read(event: str, payload: Any, *, forks: bool = False) -> list[Deed]:
    return read_event(event, json.dumps(payload).encode(), forks=forks)


def test_the_published_signature_is_taken_and_others_are_not() -> None:
    secret, body = b"It's a Secret to Everybody", b"Hello, World!"
    good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    check_signature(good, body, [secret])
    check_signature(good, body, [b"a newer one", secret])
    texts = set()
    for header, sent, secrets in (
        ("", body, [secret]),
        ("sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59", body, [secret]),
        (good[7:], body, [secret]),
        (good.upper(), body, [secret]),
        (good[:-1], body, [secret]),
        (good + "0", body, [secret]),
        (good, body + b" ", [secret]),
        (good, body, [b"another"]),
        (good, body, []),
        ("sha256=\N{SNOWMAN}\udcff", body, [secret]),
    ):
        with pytest.raises(Unauthorized) as refused:
            check_signature(header, sent, secrets)
        texts.add(str(refused.value))
    assert len(texts) == 1


def test_a_push_to_the_default_branch_is_a_run() -> None:
    (deed,) = read("push", push())
    assert isinstance(deed, Accept)
    made = deed.push
    assert (made.owner, made.repository, made.branch, made.sha) == ("Ada", "Greet", "main", SHA)
    assert (made.by, made.subject, made.default, made.details) == (
        "ada",
        "Say hello",
        True,
        {"id": "7", "owner-id": "3"},
    )


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("push", push(ref="refs/tags/v1")),
        ("push", push(ref="refs/heads/feature")),
        ("push", push(ref="refs/heads/feature", deleted=True, after="0" * 40)),
        ("ping", {"zen": "Keep it logically awesome."}),
        ("star", {"anything": [1, 2]}),
        ("pull_request", pull("edited")),
        ("pull_request", pull("labeled", label={"name": ALLOW_LABEL})),
        ("pull_request", pull("opened", fork=True)),
        ("pull_request", pull("synchronize", fork=True)),
        ("pull_request", pull("labeled", fork=True, label={"name": "bug"})),
        ("repository", {"action": "archived", "repository": REPOSITORY}),
        ("repository", {"action": "edited", "repository": REPOSITORY, "changes": {"description": {"from": "x"}}}),
        ("check_run", {"action": "created", "repository": REPOSITORY, "check_run": {"head_sha": SHA}}),
        ("installation", {"action": "suspend", "installation": {"account": {"login": "Ada"}}}),
    ],
)
def test_nothing_is_started_by(event: str, payload: Any) -> None:
    assert read(event, payload) == []


def test_a_deleted_branch_removes_and_a_forced_push_does_not_matter() -> None:
    (gone,) = read("push", push(deleted=True, after="0" * 40, head_commit=None))
    assert isinstance(gone, Accept) and gone.push.sha == GONE
    assert read("push", push(forced=True, before="1" * 40)) == read("push", push())


def test_pull_requests_are_places_of_their_own() -> None:
    for action in ("opened", "reopened", "synchronize"):
        (deed,) = read("pull_request", pull(action))
        assert isinstance(deed, Accept)
        assert (deed.push.pull, deed.push.branch, deed.push.default) == (5, "pull/5", False)
        assert "fork" not in deed.push.details
    (closed,) = read("pull_request", pull("closed", fork=True))
    assert isinstance(closed, Accept) and closed.push.sha == GONE


def test_a_fork_is_built_only_where_it_is_allowed_and_is_marked() -> None:
    labeled = pull("labeled", fork=True, label={"name": ALLOW_LABEL})
    gone_fork = pull("opened")
    gone_fork["pull_request"]["head"]["repo"] = None
    for payload, forks in ((labeled, False), (pull("opened", fork=True), True), (gone_fork, True)):
        (deed,) = read("pull_request", payload, forks=forks)
        assert isinstance(deed, Accept) and deed.push.details["fork"] == "true"
    assert read("pull_request", gone_fork) == []


def test_installations_connect_and_disconnect() -> None:
    short = {"id": 7, "name": "Greet", "full_name": "Ada/Greet"}
    installation = {"account": {"login": "Ada", "id": 3}}
    created = {"action": "created", "installation": installation, "repositories": [short]}
    assert read("installation", created) == [Connect(Known(7, "Ada", "Greet", owner_id=3))]
    assert read("installation", {"action": "deleted", "installation": installation}) == [Disconnect("Ada", owner_id=3)]
    changed = {"action": "removed", "installation": installation, "repositories_removed": [short]}
    assert read("installation_repositories", changed) == [Disconnect("Ada", "Greet", 7)]


def test_a_repository_that_moves_leaves_its_old_name() -> None:
    changes = {"repository": {"name": {"from": "Old"}}}
    renamed = {"action": "renamed", "repository": REPOSITORY, "changes": changes}
    assert read("repository", renamed) == [Connect(KNOWN, deploy=True), Disconnect("Ada", "Old", 7)]
    changes = {"owner": {"from": {"organization": {"login": "Eve"}}}}
    moved = {"action": "transferred", "repository": REPOSITORY, "changes": changes}
    assert read("repository", moved) == [Connect(KNOWN, deploy=True), Disconnect("Eve", "Greet", 7)]
    edited = {"action": "edited", "repository": REPOSITORY, "changes": {"default_branch": {"from": "master"}}}
    assert read("repository", edited) == [LeaveBranch(KNOWN, "master"), Connect(KNOWN, deploy=True)]
    assert read("repository", {"action": "deleted", "repository": REPOSITORY}) == [Disconnect("Ada", "Greet", 7)]


def test_the_button_re_run() -> None:
    for event in ("check_run", "check_suite"):
        payload = {"action": "rerequested", "repository": REPOSITORY, event: {"head_sha": SHA}}
        assert read(event, payload) == [Rerun("Ada", "Greet", SHA)]


@pytest.mark.parametrize(
    "payload",
    [
        [],
        1,
        None,
        "text",
        {},
        push(after="--upload-pack=id"),
        push(after=SHA[:-1]),
        push(after=SHA.upper()),
        push(after=SHA + "\n"),
        push(after=7),
        push(after=None),
        push(ref=["refs/heads/main"]),
        push(repository={**REPOSITORY, "default_branch": "--help"}, ref="refs/heads/--help"),
        push(repository={**REPOSITORY, "default_branch": "a..b"}, ref="refs/heads/a..b"),
        push(repository={**REPOSITORY, "full_name": "Ada/--upload-pack=id", "name": "--upload-pack=id"}),
        push(repository={**REPOSITORY, "full_name": "Ada/../../etc", "name": "../../etc"}),
        push(repository={**REPOSITORY, "full_name": "Ada/..", "name": ".."}),
        push(repository={**REPOSITORY, "full_name": "-Ada/Greet", "owner": {"login": "-Ada"}}),
        push(repository={**REPOSITORY, "full_name": "Eve/Greet"}),
        push(repository={**REPOSITORY, "full_name": "Ada/Other"}),
        push(repository={**REPOSITORY, "full_name": "A@da/Greet", "owner": {"login": "A@da"}}),
        push(repository={**REPOSITORY, "id": "7"}),
        push(repository={**REPOSITORY, "id": -7}),
        push(repository=None),
        push(head_commit={"message": {"a": "b"}}),
    ],
)
def test_a_push_that_is_none_is_refused(payload: Any) -> None:
    with pytest.raises(BadInput):
        read("push", payload)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"{" * 100_000, b'{"a":' * 100_000, b"[" * 1_000_000, b'{"ref":"refs/heads/main\xff"}'],
)
@pytest.mark.parametrize("event", ["push", "pull_request", "installation", "repository", "check_run"])
def test_what_is_no_json_of_githubs_is_refused(event: str, body: bytes) -> None:
    with pytest.raises(BadInput):
        read_event(event, body)


def test_text_of_strangers_is_one_short_printable_line() -> None:
    (deed,) = read("push", push(head_commit={"message": "a\x1b[2Jb\x07" + "c" * 500 + "\nd"}))
    assert isinstance(deed, Accept)
    assert deed.push.subject.startswith("a[2Jbccc") and len(deed.push.subject) == 200
