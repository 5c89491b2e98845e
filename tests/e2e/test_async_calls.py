"""`/async-function/`: 202 when it is stored, the call later and once, through kills of what is between."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import pytest
from running_platform import Answer, Platform, wait_for

from stoker_sdk.errors import Conflict, NotFound, Unavailable
from stoker_sdk.messages import CallStatus

RECORD = """
import json, os

def handle(event, context):
    headers = {name.lower(): value for name, value in event.headers.items()}
    print(json.dumps({"method": event.method, "path": event.path, "query": str(event.query), "headers": headers,
                      "body": event.body.decode("latin-1")}))
    return "ok"
"""
SLEEP = """
import time

def handle(event, context):
    print("begun", flush=True)
    time.sleep(float(event.text or 0))
    print("slept", flush=True)
    return "ok"
"""
FAILS = """
def handle(event, context):
    print("tried")
    return {"statusCode": 503, "body": "no luck"}
"""
OWN = {"x-call-id", "x-start-time"}


def accepted(answer: Answer) -> str:
    assert answer.status == 202, answer
    assert answer.body == b"" and answer.headers["x-start-time"].isdigit()
    return answer.headers["x-call-id"]


def ended(platform: Platform, id: str, seconds: float = 20.0) -> CallStatus:
    def status() -> CallStatus | None:
        try:
            status = platform.client.call_status(id)
        except Unavailable:  # the broker is being started again
            return None
        return status if status.state in ("done", "dead", "cancelled") else None

    return wait_for(status, f"the end of call {id}", seconds)


def printed(platform: Platform, name: str) -> list[str]:
    return [line.text.strip() for line in platform.logs(name)]


def test_a_call_is_made_once_with_the_very_request_of_a_synchronous_one(platform: Platform) -> None:
    platform.deploy("recorded", RECORD)
    body = bytes(range(256)) * 4
    headers = {"X-Custom": "a,  b", "Content-Type": "application/x-things", "X-Forwarded-For": "192.0.2.7"}
    assert platform.call("recorded", body, path="/a%2Fb/c?x=1&y=%20", headers=headers).status == 200
    id = accepted(platform.call_later("recorded", body, path="/a%2Fb/c?x=1&y=%20", headers=headers))
    status = ended(platform, id)
    assert (status.state, status.status, len(status.attempts)) == ("done", 200, 1)
    sync, later = (json.loads(line) for line in wait_for(lambda: two(printed(platform, "recorded")), "two lines"))
    assert later["headers"].pop("x-call-id") == id
    del sync["headers"]["x-call-id"], sync["headers"]["x-start-time"], later["headers"]["x-start-time"]
    assert later == sync


def two(lines: list[str]) -> list[str] | None:
    assert len(lines) <= 2
    return lines if len(lines) == 2 else None


def test_the_callers_own_id_is_used_unless_it_is_taken(platform: Platform) -> None:
    platform.deploy("named", RECORD)
    accepted(platform.call_later("named"))  # the proxies are connected from now on
    given = {"X-Call-Id": f"mine-{time.time_ns()}"}
    first = wait_for(lambda: _given(platform, given), "a call under the caller's own id")
    assert ended(platform, first).state == "done"
    second = accepted(platform.call_later("named", headers=given))
    assert second != first and ended(platform, second).state == "done"


def _given(platform: Platform, given: dict[str, str]) -> str:
    id = accepted(platform.call_later("named", headers=given))
    return id if id == given["X-Call-Id"] else ""


def test_what_cannot_be_queued_is_refused(platform: Platform) -> None:
    platform.deploy("refusing", RECORD)
    unknown = platform.call_later("no-such-function")
    assert unknown.status == 404 and "no-such-function" in unknown.text
    wrong = platform.request("GET", "/async-function/refusing", b"")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    nowhere = platform.call_later("refusing", headers={"X-Callback-Url": "ftp://example.org/"})
    assert nowhere.status == 400 and "http://HOST/PATH" in nowhere.text
    largest = platform.call_later("refusing", b"x" * (16 * 1024 * 1024))  # of those in a message
    assert ended(platform, accepted(largest)).state == "done"


def test_a_failing_call_is_tried_again_and_then_dead_and_can_be_replayed(platform: Platform) -> None:
    retries = {"stoker.dev/retries": '{"max":2,"backoff":"50ms","max_backoff":"100ms"}'}
    platform.deploy("failing", FAILS, annotations=retries)
    id = accepted(platform.call_later("failing", b"the body"))
    status = ended(platform, id)
    assert (status.state, status.status, len(status.attempts)) == ("dead", 503, 3)
    assert "503" in status.reason and status.answer == "no luck"
    assert [one.id for one in platform.client.calls("failing", state="dead")] == [id]
    platform.deploy("failing", RECORD)
    new = platform.client.replay_call(id, body=b"another")
    assert ended(platform, new).state == "done"
    assert platform.client.call_status(new).replay_of == id
    assert json.loads(printed(platform, "failing")[-1])["body"] == "another"
    with pytest.raises(Conflict):
        platform.client.replay_call(new)


def test_queued_and_running_calls_are_cancelled(platform: Platform) -> None:
    platform.deploy("cancelled", SLEEP, annotations={"stoker.dev/concurrency": "1"})
    running = accepted(platform.call_later("cancelled", b"60"))
    wait_for(lambda: platform.client.call_status(running).state == "running", "the first to run")
    queued = accepted(platform.call_later("cancelled", b"60"))
    assert platform.client.call_status(queued).state == "queued"
    states = {one.id: one.state for one in platform.client.calls("cancelled")}
    assert states == {running: "running", queued: "queued"}
    platform.client.cancel_call(queued)
    platform.client.cancel_call(running)
    assert {ended(platform, id).state for id in (queued, running)} == {"cancelled"}
    with pytest.raises(Conflict):
        platform.client.cancel_call(queued)
    with pytest.raises(NotFound):
        platform.client.cancel_call("never-heard-of")
    assert printed(platform, "cancelled").count("begun") == 1


def test_waiting_calls_of_one_function_do_not_delay_anothers(platform: Platform) -> None:
    platform.deploy("slow", SLEEP, annotations={"stoker.dev/concurrency": "1"})
    platform.deploy("quick", SLEEP)
    ended(platform, accepted(platform.call_later("quick")))
    many = [accepted(platform.call_later("slow", b"30")) for _ in range(100)]
    began = time.monotonic()
    assert ended(platform, accepted(platform.call_later("quick"))).state == "done"
    assert time.monotonic() - began < 0.5
    page = platform.client.calls("slow", limit=60)
    rest = platform.client.calls("slow", limit=60, after=page[-1].cursor)
    assert [one.id for one in page + rest] == many
    for id in many:
        platform.client.cancel_call(id)


def test_without_a_broker_the_route_says_so(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--no-async",))
    platform.deploy("lonely", RECORD)
    answer = platform.call_later("lonely")
    assert answer.status == 501 and "--no-async" in answer.text
    with pytest.raises(NotFound, match="--no-async"):
        platform.client.calls()
    assert "broker" not in platform.pids() and "worker 0" not in platform.pids()


@pytest.mark.slow
def test_stored_calls_survive_the_broker_and_while_it_is_away_nothing_is_promised(own_platform: Platform) -> None:
    platform = own_platform
    platform.deploy("kept", SLEEP, annotations={"stoker.dev/concurrency": "2"})
    ids = [accepted(platform.call_later("kept", b"0.2")) for _ in range(20)]
    for _ in range(3):
        platform.kill("broker")
        answer = platform.call_later("kept", b"0.2")  # waits for the restart
        assert answer.status in (202, 503), answer
        ids += [answer.headers["x-call-id"]] if answer.status == 202 else []
    for id in ids:
        assert ended(platform, id, 60).state == "done"
    assert printed(platform, "kept").count("slept") == len(ids)


@pytest.mark.slow
def test_a_worker_that_is_killed_in_a_call_leaves_it_to_the_next(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--worker-lost-after", "2s"))
    platform.deploy("taken-over", SLEEP)
    id = accepted(platform.call_later("taken-over", b"1"))
    wait_for(lambda: "begun" in printed(platform, "taken-over"), "the call to begin")
    platform.kill("worker 0")
    assert ended(platform, id).state == "done"
    assert printed(platform, "taken-over").count("begun") == 2


@pytest.mark.slow
def test_a_call_twenty_times_as_long_as_the_brokers_patience_runs_once(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(flags=("--worker-lost-after", "1s", "--workers", "2"))
    platform.deploy("patient", SLEEP)
    status = ended(platform, accepted(platform.call_later("patient", b"20")), 40)
    assert (status.state, len(status.attempts)) == ("done", 1)
    assert printed(platform, "patient") == ["begun", "slept"]


@pytest.mark.slow
def test_a_stopped_platform_keeps_its_calls(own_platform: Platform) -> None:
    platform = own_platform
    platform.deploy("later", SLEEP, annotations={"stoker.dev/concurrency": "1"})
    ids = [accepted(platform.call_later("later", b"0.3")) for _ in range(6)]
    platform.stop()
    platform.start()
    for id in ids:
        assert ended(platform, id).state == "done"
    assert printed(platform, "later").count("slept") == 6


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"headers": 1}', b'{"body": "not base64!"}'])
def test_a_bad_replay_is_refused_with_the_reason(platform: Platform, body: bytes) -> None:
    token = base64.b64encode(f"admin:{platform.data.password.read_text().strip()}".encode()).decode()
    answer = platform.request("POST", "/system/calls/no-such-call/replay", body, {"Authorization": f"Basic {token}"})
    assert answer.status in (400, 404) and answer.headers["x-stoker-error"].startswith("client; ")
    assert answer.text.endswith("\n") and "Traceback" not in answer.text
