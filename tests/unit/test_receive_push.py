"""What a push may move, and which branch of a repository is live: decisions on values alone."""

from __future__ import annotations

import pytest

from stoker_builder.pipeline.git import check_branch, check_sha
from stoker_builder.pipeline.own.receive import Command, live_branch, read_command, refusal
from stoker_sdk.errors import BadInput

A, ZERO = "a" * 40, "0" * 40


@pytest.mark.parametrize(
    ("named", "has_commits", "pushed", "expected"),
    [
        ("main", True, ["dev"], "main"),
        ("main", False, ["another", "main"], "main"),
        ("main", False, ["another", "master"], "master"),
        ("main", False, ["trunk", "another"], "trunk"),
        ("main", False, [], "main"),  # tags alone
    ],
)
def test_the_first_push_chooses_the_live_branch(
    named: str, has_commits: bool, pushed: list[str], expected: str
) -> None:
    assert live_branch(named, has_commits, pushed) == expected


def test_commands_are_read() -> None:
    assert read_command(ZERO, A, "refs/heads/a/b") == Command(ZERO, A, "refs/heads/a/b")
    assert read_command(A, ZERO, "refs/tags/v1").new == ""
    assert read_command(ZERO, A, "refs/tags/v1").branch == ""


@pytest.mark.parametrize(
    "ref", ["HEAD", "refs/stoker/accepted", "refs/notes/x", "refs/heads/", "refs/heads/../x", "main"]
)
def test_other_refs_are_refused(ref: str) -> None:
    with pytest.raises(BadInput):
        read_command(ZERO, A, ref)


def test_the_live_branch_alone_cannot_be_deleted() -> None:
    assert refusal(read_command(A, ZERO, "refs/heads/main"), "main")
    assert not refusal(read_command(A, ZERO, "refs/heads/dev"), "main")
    assert not refusal(read_command(A, A, "refs/heads/main"), "main")
    assert not refusal(read_command(A, ZERO, "refs/tags/main"), "main")


@pytest.mark.parametrize(
    "branch",
    [
        "",
        "-x",
        "--upload-pack=x",
        "/x",
        "x/",
        ".x",
        "x/.y",
        "x.lock",
        "x.",
        "a..b",
        "a//b",
        "a@{b",
        "@",
        "HEAD",
        "a b",
        "a~1",
    ]
    + ["a^", "a:b", "a?", "a*", "a[", "a\\b", "a\nb", "a\0b", "x" * 256],
)
def test_what_is_no_branch(branch: str) -> None:
    with pytest.raises(BadInput):
        check_branch(branch)


@pytest.mark.parametrize("sha", ["", "main", "--detach", "a" * 39, "A" * 40, "a" * 41, f"{A}\n", "g" * 40, "HEAD"])
def test_what_is_no_commit(sha: str) -> None:
    with pytest.raises(BadInput):
        check_sha(sha)


def test_both_kinds_of_commit_ids_are_taken() -> None:
    assert check_sha(A) and check_sha("b" * 64)
