"""What the pages work out of plain values: who sees what, times, the timeline of a run, the badge, quantiles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from stoker_gateway.counters import FunctionCounters, Timings, add_up
from stoker_gateway.pages.access import Session
from stoker_gateway.pages.badge import verdict
from stoker_gateway.pages.rendering import ago, environment, seconds, tone, url
from stoker_gateway.pages.rows import by_owner, function_row, function_rows, repository_rows
from stoker_gateway.pages.timeline import function_steps, steps
from stoker_gateway.proxy.entry import Entry
from stoker_gateway.routes import Route
from stoker_sdk.function import Condition, FunctionStatus
from stoker_sdk.messages import FunctionFigures
from stoker_sdk.runs import STATES, FunctionResult, Push, Run

PUSH = Push("stoker", "Alice", "hello", "main", "0123456789abcdef")
ADMIN = Session("id", "admin", 0, is_admin=True)
ALICE = Session("id", "Alice", 0, owners={"alice": 1, "acme": 2})


@pytest.mark.parametrize(("owner", "sees"), [("alice", True), ("ALICE", True), ("acme", True), ("alic", False),
                                             ("alicea", False), ("", False), ("bob", False)])  # fmt: skip
def test_owners_are_compared_whole(owner: str, sees: bool) -> None:
    assert ALICE.may_see(owner) is sees
    assert ADMIN.may_see(owner)


def function(name: str, owner: str = "", repository: str = "hello") -> FunctionStatus:
    marks = {"stoker.dev/owner": owner, "stoker.dev/repository": repository, "stoker.dev/function": name}
    return FunctionStatus(f"{name}-{owner}", "i", "openfaas-fn", annotations=marks if owner else None)


def test_functions_without_an_owner_are_the_administrators() -> None:
    statuses = [function("a", "alice"), function("b"), function("c", "bob"), function("d", "alice", "<no repository>")]
    assert [row.title for row in function_rows(statuses, [], ADMIN, "http://h")] == ["b-", "d-alice", "a", "c"]
    assert [row.title for row in function_rows(statuses, [], ALICE, "http://h")] == ["d-alice", "a"]


def test_who_has_a_login_that_was_somebody_elses_sees_only_their_own() -> None:
    before, now, unproved = (function(name, "alice") for name in "abc")
    assert before.annotations is not None and now.annotations is not None
    before.annotations["stoker.dev/account"] = "github 9"
    now.annotations["stoker.dev/account"] = "github 1"
    gitlab = function("d", "acme")
    assert gitlab.annotations is not None
    gitlab.annotations["stoker.dev/account"] = "gitlab 2"
    statuses = [before, now, unproved, gitlab]
    assert [row.title for row in function_rows(statuses, [], ALICE, "http://h")] == ["b", "c"]
    assert len(function_rows(statuses, [], ADMIN, "http://h")) == 4
    runs = [Run(id, PUSH, account=account) for id, account in enumerate(("github 9", "github 1", ""), 1)]
    assert [ALICE.may_see_run(run) for run in runs] == [False, True, True]


def test_a_public_address_is_shown_before_the_gateways() -> None:
    condition = Condition("ready", 1, urls=["https://alice.faas.example/a", "https://b.example/"])
    status = msgspec.structs.replace(function("a", "alice"), stoker=condition)
    assert function_row(status, None, "http://h").url == "https://alice.faas.example/a"
    assert function_row(function("a", "alice"), None, "http://h").url == "http://h/function/a-alice"


def test_an_owner_whose_first_run_failed_is_there_without_functions() -> None:
    repositories = repository_rows([Run(2, PUSH, "failed"), Run(1, PUSH, "succeeded")], ADMIN)
    assert [(each.owner, each.name, each.newest.id) for each in repositories] == [("alice", "hello", 2)]
    assert by_owner([], repositories) == {"alice": []}
    assert repository_rows([Run(1, PUSH)], Session("id", "bob", 0, owners={"bob": 1})) == []


@pytest.mark.parametrize(
    ("passed", "text"),
    [(0, "just now"), (58, "just now"), (60, "1 minute ago"), (7200, "2 hours ago"), (86400 * 3, "3 days ago")],
)
def test_times_are_told_as_people_tell_them(passed: float, text: str) -> None:
    at = (datetime.now(UTC) - timedelta(seconds=passed + 0.5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert ago(at) == text


@pytest.mark.parametrize("text", ["", "0001-01-01T00:00:00Z", "yesterday", "<b>"])
def test_what_is_no_time_is_nothing(text: str) -> None:
    assert ago(text) == ""


def test_durations_have_the_unit_that_fits() -> None:
    assert [seconds(value) for value in (0.0034, 0.25, 12.34, 75)] == ["3.4 ms", "250 ms", "12.3 s", "1 min 15 s"]


def test_an_address_is_one_whatever_is_in_it() -> None:
    assert url("owners", "../<x>?#") == "/ui/owners/..%2F%3Cx%3E%3F%23"


def test_templates_escape_and_know_no_undefined_name() -> None:
    template = environment().from_string("{{ text }}")
    assert template.render(text="<&\"'>") == "&lt;&amp;&#34;&#39;&gt;"
    with pytest.raises(Exception, match="undefined"):
        template.render()


def test_every_state_of_a_run_has_a_colour_of_ours() -> None:
    assert {tone(state) for state in STATES} == {"good", "bad", "busy", "calm"}


NOW = "2026-01-31T12:00:00Z"
SECONDS = {"build": 1.5, "tests": 0.5, "deploy": 0.1, "ready": 0.4}
DEPLOYED = FunctionResult("f", "s", "deployed", image="r/f@sha256:" + "a" * 64, seconds=SECONDS)


def states(run: Run, result: FunctionResult, live: FunctionFigures | None = None) -> list[tuple[str, str]]:
    found = function_steps(run, result, {result.service: live} if live else {})
    return [(step.name, step.state) for step in found]


def test_a_function_goes_from_commit_to_first_call() -> None:
    run = Run(1, PUSH, "succeeded")
    called = FunctionFigures("s", "n", first_call_at="2026-01-31T12:00:09.000Z", codes={"200": 1})
    texts = {step.name: step.text for step in function_steps(run, DEPLOYED, {"s": called})}
    assert texts == {
        "commit": "0123456",
        "build and tests": "2.0 s",
        "artefact": "sha256:aaaaaaaaaaaa",
        "ready": "500 ms",
        "first call": "12:00:09",
    }
    assert states(run, DEPLOYED, called)[-1] == ("first call", "done")
    assert states(run, DEPLOYED, FunctionFigures("s", "n"))[-1] == ("first call", "waiting")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (FunctionResult("f"), ["done", "waiting", "waiting", "waiting", "waiting"]),
        (FunctionResult("f", state="building"), ["done", "going", "waiting", "waiting", "waiting"]),
        (FunctionResult("f", state="deploying", image="i@d"), ["done", "done", "done", "going", "waiting"]),
        (FunctionResult("f", state="failed", test="t"), ["done", "failed", "waiting", "waiting", "waiting"]),
        (FunctionResult("f", state="failed"), ["done", "failed", "waiting", "waiting", "waiting"]),
        (FunctionResult("f", state="failed", image="i@d"), ["done", "done", "done", "failed", "waiting"]),
        (FunctionResult("f", state="removed"), ["done", "done"]),
    ],
)
def test_each_state_of_a_function_has_its_place_on_the_way(result: FunctionResult, expected: list[str]) -> None:
    assert [state for _, state in states(Run(1, PUSH, "running"), result)] == expected


@pytest.mark.parametrize(
    ("run", "last"),
    [
        (Run(1, PUSH, "queued", created_at=NOW), ("run", "waiting")),
        (Run(1, PUSH, "running", created_at=NOW, started_at=NOW), ("running", "going")),
        (Run(1, PUSH, "failed", created_at=NOW, started_at=NOW, ended_at=NOW), ("failed", "failed")),
        (Run(1, PUSH, "superseded", created_at=NOW, ended_at=NOW), ("superseded", "waiting")),
    ],
)
def test_each_state_of_a_run_has_its_place(run: Run, last: tuple[str, str]) -> None:
    found = steps(run)
    assert (found[-1].name, found[-1].state) == last


def test_a_badge_is_of_the_default_branch_and_of_what_has_ended() -> None:
    other = Push("stoker", "alice", "hello", "feature", "s", default=False)
    pull = Push("github", "alice", "hello", "x", "s", pull=3)
    runs = [Run(4, PUSH, "running"), Run(3, other, "failed"), Run(2, pull, "failed"), Run(1, PUSH, "succeeded")]
    assert verdict(runs) == "passing"
    assert verdict(runs, "missing") == verdict([]) == "unknown"


def test_a_quantile_lies_in_the_bucket_of_its_call() -> None:
    timings = Timings()
    assert timings.quantile(0.5) == 0
    for value in (0.001, 0.02, 0.02, 0.02, 60.0):
        timings.observe(value)
    assert 0.01 < timings.quantile(0.5) <= 0.025
    assert timings.quantile(0.1) <= 0.005
    assert timings.quantile(0.99) == 10.0


def test_a_revisions_first_call_is_noticed_by_who_saw_it_come() -> None:
    def route(revision: int) -> Route:
        return Route("f.n", 1, 0, [], revision=revision)

    entry = Entry("f.n", is_new=True)
    entry.update(route(1))
    assert entry.counters().first_call == 0
    entry.started += 1
    first = entry.counters().first_call
    assert first > 0 and entry.counters().first_call == first
    entry.update(route(0))  # no replica is ready
    entry.update(route(1))
    assert entry.counters().first_call == first
    entry.update(route(2))
    assert (entry.counters().revision, entry.counters().first_call) == (2, 0)


def test_what_was_there_before_the_proxy_may_have_been_called_before() -> None:
    entry = Entry("f.n")
    entry.update(Route("f.n", 1, 0, [], revision=4))
    entry.started += 1
    assert entry.counters().first_call == 0
    entry.update(Route("f.n", 1, 0, [], revision=5))
    entry.started += 1
    assert entry.counters().first_call > 0


def test_of_several_proxies_the_first_call_of_the_newest_revision_counts() -> None:
    parts = [
        [FunctionCounters("f", revision=revision, first_call=at)] for revision, at in ((1, 5), (2, 9), (2, 7), (2, 0))
    ]
    [total] = add_up(parts)
    assert (total.revision, total.first_call) == (2, 7)
