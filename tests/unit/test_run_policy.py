"""Which runs go next, which ones need not begin, and which ones must not go live: decisions on values alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_builder.pipeline.policy import Limits, after_a_kill, choose, overtaken, same_push, superseded_by
from stoker_sdk.runs import CANCELLED, FAILED, QUEUED, RUNNING, STATES, SUCCEEDED, SUPERSEDED, Push, Run

A, B = "a" * 40, "b" * 40


def run(id: int, owner: str = "me", repository: str = "web", state: str = QUEUED, sha: str = A, **more: Any) -> Run:
    branch, pull = more.pop("branch", "main"), more.pop("pull", 0)
    return Run(id, Push("stoker", owner, repository, branch, sha, pull=pull), state=state, **more)


def ids(runs: list[Run]) -> list[int]:
    return [each.id for each in runs]


@pytest.mark.parametrize(
    ("runs", "limits", "served", "expected"),
    [
        ([], Limits(), [], []),
        ([run(1)], Limits(), [], [1]),
        ([run(2), run(1, "you")], Limits(2, 2), [], [1, 2]),  # the older one first
        ([run(1), run(2)], Limits(2, 2), [], [2]),  # one run of a repository at a time, the newest of its branch
        ([run(1), run(2, branch="dev")], Limits(2, 2), [], [1]),  # also of two branches
        ([run(1), run(2, repository="api")], Limits(2, 1), [], [1]),  # one of an owner
        ([run(1), run(2, repository="api")], Limits(2, 2), [], [1, 2]),
        (
            [run(1, state=RUNNING), run(2, repository="api"), run(3, "you")],
            Limits(2, 2),
            [],
            [3],
        ),  # fewer running first
        ([run(1, state=RUNNING), run(2, "you", state=RUNNING), run(3, "she")], Limits(2, 2), [], []),  # full
        ([run(1), run(2, "you")], Limits(1, 1), ["you", "me"], [2]),  # who was served longest ago
        ([run(1), run(2, "you"), run(3, "she")], Limits(1, 1), ["me", "you"], [3]),  # who was never served
        ([run(1, state=SUCCEEDED), run(2, state=CANCELLED)], Limits(), [], []),
    ],
)
def test_who_goes_next(runs: list[Run], limits: Limits, served: list[str], expected: list[int]) -> None:
    assert ids(choose(runs, limits, served)) == expected


RUNS = st.builds(
    run,
    st.integers(1, 10_000),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["x", "y"]),
    st.sampled_from(STATES),
)


@given(st.lists(RUNS, unique_by=lambda each: each.id, max_size=30), st.integers(1, 5), st.integers(1, 3))
def test_what_is_chosen_is_within_the_limits(runs: list[Run], at_once: int, per_owner: int) -> None:
    before = [each for each in runs if each.state == RUNNING]
    chosen = choose(runs, Limits(at_once, per_owner))
    going = before + chosen
    assert len(chosen) <= max(0, at_once - len(before))
    assert all(each.state == QUEUED for each in chosen)
    homes = [each.push.home for each in chosen]
    assert len(set(homes)) == len(homes) and not set(homes) & {each.push.home for each in before}
    for owner in {each.push.owner for each in chosen}:
        assert sum(each.push.owner == owner for each in going) <= max(per_owner, 1)


@given(st.lists(st.sampled_from("abc"), min_size=6, max_size=40))
def test_an_owner_with_many_pushes_delays_another_by_one_run_at_most(owners: list[str]) -> None:
    waiting = [run(number, owner, f"repository{number}") for number, owner in enumerate(owners, 1)]
    served: list[str] = []
    while waiting:
        first = choose(waiting, Limits(1, 1), served)[0]
        others = {each.push.owner for each in waiting}
        if len(others) > 1 and served:
            assert first.push.owner != served[-1]
        served.append(first.push.owner)
        waiting.remove(first)


def test_the_run_at_the_branchs_commit_supersedes_those_of_it_that_wait() -> None:
    old, other = run(1), run(2, branch="dev")
    going, done, pull = run(3, state=RUNNING), run(4, state=SUCCEEDED), run(5, pull=7)
    new = run(6, sha=B)
    assert ids(superseded_by(new, [old, other, going, done, pull, new])) == [1]
    late = run(9)  # an older commit, whose message came late
    assert ids(superseded_by(new, [late, new])) == [9]


@pytest.mark.parametrize(("head", "expected"), [(A, ""), (B, "main is at bbbbbbb now"), ("", "main is gone now")])
def test_what_the_branch_has_left_never_goes_live(head: str, expected: str) -> None:
    assert overtaken(run(1), head) == expected


def test_a_branch_that_is_gone_is_what_its_removal_wants() -> None:
    assert overtaken(run(1, sha=""), "") == ""
    assert overtaken(run(1, sha=""), A) == "main is at aaaaaaa now"


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], None),
        ([run(1)], 1),
        ([run(1, state=RUNNING)], 1),
        ([run(1, state=SUCCEEDED)], 1),
        ([run(1, state=FAILED)], None),  # it may come again
        ([run(1, state=SUPERSEDED)], None),
        ([run(1, state=SUCCEEDED), run(2, sha=B, state=SUCCEEDED)], None),  # the branch left it, and came back
        ([run(1, branch="dev")], None),
    ],
)
def test_the_same_push_is_one_run(runs: list[Run], expected: int | None) -> None:
    found = same_push(run(0).push, runs)
    assert (found.id if found else None) == expected


def test_a_run_that_was_left_behind_three_times_is_given_up() -> None:
    assert [after_a_kill(run(1, state=RUNNING, attempt=number))[0] for number in (1, 2, 3)] == [QUEUED, QUEUED, FAILED]
