"""`stoker calls` and `invoke --async --wait` as processes, against canned calls behind the API's routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from running_control import PASSWORD, RunningControl, Shell, running_control, shell

from stoker_sdk.function import FunctionSpec
from stoker_sdk.messages import CallAttempt, CallbackStatus, CallStatus

QUEUED = CallStatus("c0", "greet", "openfaas-fn", "queued", "2026-01-31T12:00:00.000Z", cursor="1")
RUNNING = CallStatus("c1", "greet", "openfaas-fn", "running", "2026-01-31T12:00:01.000Z", cursor="2")
DONE = CallStatus("c2", "other", "staging", "done", "2026-01-31T12:00:02.000Z", status=200, cursor="3")
DEAD = CallStatus(
    "c3",
    "greet",
    "openfaas-fn",
    "dead",
    "2026-01-31T12:00:03.000Z",
    started_at="2026-01-31T12:00:04.000Z",
    ended_at="2026-01-31T12:00:09.000Z",
    status=503,
    reason="status 503 at the last of 2 attempts",
    answer="no\x1b[31m luck\nat all\n",
    attempts=[
        CallAttempt(1, "2026-01-31T12:00:04.000Z", "2026-01-31T12:00:05.000Z", 503),
        CallAttempt(2, "2026-01-31T12:00:08.000Z", "2026-01-31T12:00:09.000Z", reason="connection lost"),
    ],
    cursor="4",
)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[RunningControl]:
    with running_control(tmp_path, canned_calls=True) as running:
        running.calls = {status.id: [status] for status in (QUEUED, RUNNING, DONE, DEAD)}
        yield running


@pytest.fixture
def stoker(tmp_path: Path, control: RunningControl) -> Shell:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "password").write_text(f"{PASSWORD}\n")
    return shell(tmp_path, OPENFAAS_URL=control.url)


def changed(call: CallStatus, /, **values: object) -> CallStatus:
    return msgspec.structs.replace(call, **values)


def test_list_shows_calls_over_all_pages_in_columns(stoker: Shell) -> None:
    done = stoker("calls", "list")
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            "Call  Function           State    Status  Attempts  Created",
            "c0    greet.openfaas-fn  queued                     2026-01-31T12:00:00.000Z",
            "c1    greet.openfaas-fn  running                    2026-01-31T12:00:01.000Z",
            "c2    other.staging      done     200               2026-01-31T12:00:02.000Z",
            "c3    greet.openfaas-fn  dead     503     2         2026-01-31T12:00:03.000Z",
        ],
    )


def test_list_takes_function_namespace_state_limit_and_cursor(stoker: Shell) -> None:
    def ids(*arguments: str) -> list[str]:
        return [call["id"] for call in json.loads(stoker("calls", "ls", "--json", *arguments).out)]

    assert ids("greet") == ["c0", "c1", "c3"]
    assert ids("-n", "staging") == ["c2"]
    assert ids("--state", "dead") == ["c3"]
    assert ids("--limit", "1") == ["c0"] and ids("--limit", "1", "--after", "1") == ["c1"]
    bad = stoker("calls", "list", "--state", "lost")
    assert bad.code == 2 and "'lost' is not one of" in bad.err


def test_show_tells_all_of_a_dead_call_and_lets_nothing_reach_the_terminal(stoker: Shell) -> None:
    done = stoker("calls", "show", "c3")
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            "Call:      c3",
            "Function:  greet.openfaas-fn",
            "State:     dead",
            "Status:    503",
            "Reason:    status 503 at the last of 2 attempts",
            "Created:   2026-01-31T12:00:03.000Z",
            "Started:   2026-01-31T12:00:04.000Z",
            "Ended:     2026-01-31T12:00:09.000Z",
            "Attempt 1: 2026-01-31T12:00:04.000Z to 2026-01-31T12:00:05.000Z: status 503",
            "Attempt 2: 2026-01-31T12:00:08.000Z to 2026-01-31T12:00:09.000Z: connection lost",
            "Answer:",
            "no [31m luck",
            "at all",
        ],
    )
    assert json.loads(stoker("calls", "show", "c3", "--json").out)["answer"] == DEAD.answer


@pytest.mark.parametrize(
    ("callback", "line"),
    [
        (CallbackStatus("waiting"), "waiting, 0 attempts"),
        (
            CallbackStatus("waiting", 2, "2026-01-31T12:00:07.000Z", status=503, reason="http://a answered 503"),
            "waiting, 2 attempts, the next at 2026-01-31T12:00:07.000Z: http://a answered 503",
        ),
        (
            CallbackStatus("delivered", 1, ended_at="2026-01-31T12:00:07.000Z", status=204),
            "delivered at 2026-01-31T12:00:07.000Z, 1 attempts, status 204",
        ),
        (
            CallbackStatus("failed", 8, ended_at="2026-01-31T12:00:07.000Z", reason="no\x1b[31m route"),
            "failed at 2026-01-31T12:00:07.000Z, 8 attempts: no [31m route",
        ),
    ],
)
def test_show_tells_what_became_of_the_callback(
    stoker: Shell, control: RunningControl, callback: CallbackStatus, line: str
) -> None:
    control.calls["c2"] = [changed(DONE, callback=callback)]
    assert f"Callback:  {line}" in stoker("calls", "show", "c2").out.splitlines()


def test_show_of_an_unknown_call_says_so(stoker: Shell) -> None:
    done = stoker("calls", "show", "nope")
    assert (done.code, done.err) == (1, "stoker: no such call: 'nope'; it was never accepted\n")


def test_cancel_takes_several_and_says_what_has_ended_already(stoker: Shell, control: RunningControl) -> None:
    done = stoker("calls", "cancel", "c0", "c1", "c2")
    assert (done.code, done.out) == (1, "c0: cancelled\nc1: cancelled\n")
    assert done.err == "stoker: call c2 has ended already: it is done\n"
    assert [control.calls[id][0].state for id in ("c0", "c1", "c2")] == ["cancelled", "cancelled", "done"]
    assert stoker("calls", "cancel").code == 2


def test_replay_prints_the_new_id_and_sends_what_is_changed(stoker: Shell, control: RunningControl) -> None:
    stoker.file("fixed.json", "{}")
    done = stoker("calls", "replay", "c3", "-H", "X-Mode: careful", "--body", "fixed.json")
    assert (done.code, done.out) == (0, "c3: queued as c3-again\n")
    method, path, _, body = control.invocations[-1]
    assert (method, path) == ("POST", "/system/calls/c3/replay")
    assert json.loads(body) == {"headers": {"X-Mode": "careful"}, "body": "e30="}


def test_replay_of_all_takes_the_dead_calls_of_a_function(stoker: Shell, control: RunningControl) -> None:
    control.run(control.provider.deploy(FunctionSpec("greet", "image:1", "openfaas-fn"), create=True))
    control.calls["c9"] = [changed(DEAD, id="c9", cursor="5")]
    done = stoker("calls", "replay", "--all", "greet")
    assert (done.code, done.out) == (0, "c3: queued as c3-again\nc9: queued as c9-again\n")
    assert "no such function: 'nope'" in stoker("calls", "replay", "--all", "nope").err


def test_replay_of_what_is_not_dead_or_not_named_is_refused(stoker: Shell) -> None:
    done = stoker("calls", "replay", "c2")
    assert (done.code, done.err) == (1, "stoker: call c2 is done: only dead calls are replayed\n")
    for arguments in ([], ["c3", "--all", "greet"]):
        assert "Give their ids, or a function with --all" in stoker("calls", "replay", *arguments).err


def test_purge_cancels_what_waits_and_what_runs_only_when_asked(stoker: Shell, control: RunningControl) -> None:
    control.calls["c5"] = [changed(QUEUED, id="c5", state="retrying", cursor="5")]
    done = stoker("calls", "purge", "greet")
    assert (done.out, done.err.splitlines()[0]) == ("greet: 2 calls cancelled\n", "greet: 1 calls cancelled so far")
    assert control.calls["c1"] == [RUNNING]
    assert stoker("calls", "purge", "greet", "--running").out == "greet: 1 calls cancelled\n"
    assert control.calls["c2"] == [DONE] and control.calls["c3"] == [DEAD]
    assert stoker("calls", "purge", "greet", "--dead").out == "greet: 1 calls forgotten\n"
    assert "c3" not in control.calls
    assert "choose one" in stoker("calls", "purge", "greet", "--dead", "--running").err


def test_result_prints_the_answer_as_it_was(stoker: Shell, control: RunningControl) -> None:
    control.calls["c2"] = [changed(DONE, status=201, result_until="2026-02-01T12:00:00.000Z")]
    done = stoker("calls", "result", "c2")
    assert (done.code, done.raw) == (0, b"\0\xff\n")
    assert done.err == "the answer was longer: this is its beginning\n"
    head, _, body = stoker("calls", "result", "c2", "-i").raw.partition(b"\n\n")
    assert head.startswith(b"Status: 201\n") and b"\nX-Own: a\n" in head and body == b"\0\xff\n"
    assert "Result:    kept until 2026-02-01T12:00:00.000Z" in stoker("calls", "show", "c2").out
    gone = stoker("calls", "result", "c3")
    assert gone.code == 1 and "the answer of call c3 is not kept" in gone.err and gone.out == ""


# invoke --async --wait: the gateway of these tests gives each call the id call-1


def test_wait_follows_the_call_until_it_has_ended(stoker: Shell, control: RunningControl) -> None:
    call = changed(QUEUED, id="call-1")
    control.calls["call-1"] = [call, changed(call, state="running"), changed(call, state="done", status=200)]
    done = stoker("invoke", "greet", "--async", "--wait", stdin=b"x")
    assert (done.code, done.out) == (0, "")
    assert done.err == "Function submitted asynchronously, call call-1.\ncall call-1 is done, status 200\n"


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (changed(DEAD, answer="no luck"), "call call-1 is dead after 2 attempts, status 503: status 503 at the last"),
        (changed(DONE, status=404), "call call-1 is done, status 404"),
        (changed(DONE, state="cancelled", status=0, reason="cancelled"), "call call-1 is cancelled: cancelled"),
    ],
)
def test_wait_fails_when_the_call_does(stoker: Shell, control: RunningControl, end: CallStatus, message: str) -> None:
    control.calls["call-1"] = [changed(end, id="call-1")]
    done = stoker("invoke", "greet", "--async", "--wait")
    assert done.code == 1 and f"stoker: {message}" in done.err
    assert ("no luck" in done.err) == (end.state == "dead")


def test_wait_without_async_is_wrong_usage(stoker: Shell) -> None:
    done = stoker("invoke", "greet", "--wait")
    assert done.code == 2 and "--wait is for --async" in done.err
