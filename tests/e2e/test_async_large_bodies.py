"""Async calls with bodies beyond 16 MiB: through the object store, whole, and nothing of them is left behind.

`STOKER_LARGE_BODY_MIB` (64) is the size of the first test's body; the full test has 1024.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from large_bodies import HANDLER, MIB, Body, send_later, store, with_broker
from running_platform import Answer, Platform, wait_for

from stoker_gateway.queue.bodies import chunk_subject
from stoker_gateway.queue.body_sweep import sweep
from stoker_gateway.queue.subjects import BODIES
from stoker_sdk.errors import NotFound, Unavailable
from stoker_sdk.messages import CallStatus

SIZE = int(os.environ.get("STOKER_LARGE_BODY_MIB", "64"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def accepted(answer: Answer) -> str:
    assert answer.status == 202, answer
    return answer.headers["x-call-id"]


def ended(platform: Platform, id: str, seconds: float = 60.0) -> CallStatus:
    def status() -> CallStatus | None:
        try:
            status = platform.client.call_status(id)
        except Unavailable:  # the broker is being started again
            return None
        return status if status.state in ("done", "dead", "cancelled") else None

    return wait_for(status, f"the end of call {id}", seconds)


def printed(platform: Platform, name: str) -> list[str]:
    return [line.text.strip() for line in platform.logs(name)]


def is_empty(platform: Platform) -> None:
    wait_for(lambda: not store(platform), "an empty object store")


def resident(pid: int, what: str) -> int:
    """Megabytes: `VmRSS` is now, `VmHWM` the most so far."""
    match = re.search(rf"^{what}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) // 1024


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_body_arrives_as_it_was_sent_and_no_process_grows(own_platform: Platform, chunked: bool) -> None:
    platform = own_platform
    platform.deploy("large", HANDLER)
    ended(platform, accepted(platform.call_later("large", b"the first")))  # everything is loaded and connected now
    pids = {role: platform.pid(role) for role in ("proxy 0", "worker 0", "broker")}
    before = {role: resident(pid, "VmRSS") for role, pid in pids.items()}
    begun = time.monotonic()
    body = Body(SIZE)
    id = accepted(send_later(platform, "large", body, chunked=chunked))
    stored = time.monotonic()
    status = ended(platform, id, 200)
    done = time.monotonic()
    peaks = {role: resident(pid, "VmHWM") for role, pid in pids.items()}
    print(f"{SIZE} MiB: stored in {stored - begun:.1f} s, run in {done - stored:.1f} s; MB {before}, at most {peaks}")
    assert (status.state, len(status.attempts)) == ("done", 1)
    assert printed(platform, "large")[-1] == body.digest
    # A body whose length is not known is gathered up to 16 MiB, for it may be a small one.
    assert peaks["proxy 0"] - before["proxy 0"] < (60 if chunked else 20)
    assert peaks["worker 0"] - before["worker 0"] < 30
    is_empty(platform)


def test_a_larger_one_is_refused_with_the_limit_and_the_limit_of_other_calls_does_not_count(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(flags=("--max-async-body", "20Mi", "--max-body", "1Mi"))
    platform.deploy("limited", HANDLER)
    body = Body(20)
    assert ended(platform, accepted(send_later(platform, "limited", body))).state == "done"
    assert printed(platform, "limited")[-1] == body.digest
    announced = platform.call_later("limited", b"x" * (20 * MIB + 1))
    assert announced.status == 413 and str(20 * MIB) in announced.text
    try:
        grown = send_later(platform, "limited", Body(24), chunked=True)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the refusal came while we were still sending
    else:
        assert grown.status == 413 and str(20 * MIB) in grown.text
    is_empty(platform)
    told = invoke(platform, "limited", b"x" * (21 * MIB))
    assert told.returncode == 1 and f"larger than {20 * MIB} bytes" in told.stderr.decode()
    told = invoke(platform, "limited", b"x" * (21 * MIB), as_file=True)
    assert told.returncode == 1 and f"larger than {20 * MIB} bytes" in told.stderr.decode()


@pytest.mark.parametrize("as_file", [False, True], ids=["pipe", "file"])
def test_the_command_sends_a_large_input(platform: Platform, as_file: bool) -> None:
    platform.deploy("by-command", HANDLER)
    body = Body(20)
    done = invoke(platform, "by-command", b"".join(body), "--wait", as_file=as_file)
    assert done.returncode == 0 and b"is done" in done.stderr, done
    assert printed(platform, "by-command")[-1] == body.digest


def invoke(
    platform: Platform, name: str, body: bytes, *flags: str, as_file: bool = False
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "stoker_cli", "invoke", name, "--async", *flags, "--gateway", platform.http_url]
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.seek(0)
        source: Any = {"stdin": file} if as_file else {"input": body}
        return subprocess.run(command, **source, capture_output=True, env=platform.environment, timeout=60, check=False)


def test_a_caller_who_leaves_midway_leaves_nothing_behind(own_platform: Platform) -> None:
    own_platform.deploy("left", HANDLER)
    connection = http.client.HTTPConnection(*own_platform.http, timeout=60)
    connection.putrequest("POST", "/async-function/left")
    connection.putheader("Content-Length", str(40 * MIB))
    connection.endheaders()
    for piece in Body(20):
        connection.send(piece)
    wait_for(lambda: store(own_platform), "the first pieces")
    connection.close()
    is_empty(own_platform)
    assert own_platform.client.calls("left") == []


@pytest.mark.parametrize(
    ("name", "value"), [("X-Callback-Url", "ftp://a/"), ("X-Stoker-Keep-Result", "soon"), ("Idempotency-Key", "")]
)
def test_a_bad_header_is_refused_before_the_body_has_come(own_platform: Platform, name: str, value: str) -> None:
    own_platform.deploy("refused", HANDLER)
    connection = http.client.HTTPConnection(*own_platform.http, timeout=60)
    connection.putrequest("POST", "/async-function/refused")
    connection.putheader("Content-Length", str(100 * MIB))
    connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 400 and value[:20] in answer.read().decode()
    connection.close()


def test_what_a_killed_proxy_leaves_is_swept(own_platform: Platform) -> None:
    own_platform.deploy("orphaned", HANDLER)
    connection = http.client.HTTPConnection(*own_platform.http, timeout=60)
    connection.putrequest("POST", "/async-function/orphaned")
    connection.putheader("Content-Length", str(40 * MIB))
    connection.endheaders()
    for piece in Body(20):
        connection.send(piece)
    wait_for(lambda: store(own_platform), "the first pieces")
    own_platform.kill("proxy 0")
    connection.close()
    assert len(store(own_platform)) == 1
    assert with_broker(own_platform, sweep) == []  # it is young, and might still get its call
    assert len(with_broker(own_platform, lambda client: sweep(client, min_age=-10))) == 1
    assert not store(own_platform)


def test_a_broker_that_is_killed_midway_costs_nothing_or_the_call(own_platform: Platform) -> None:
    platform = own_platform
    platform.deploy("uploaded", HANDLER)
    ended(platform, accepted(platform.call_later("uploaded", b"the first")))
    body = Body(40, lambda number: platform.kill("broker") and None if number == 20 else None)
    answer = send_later(platform, "uploaded", body)
    if answer.status == 202:
        assert ended(platform, answer.headers["x-call-id"]).state == "done"
        assert printed(platform, "uploaded")[-1] == body.digest
    else:
        assert answer.status == 503 and "retry-after" in answer.headers
    is_empty(platform)


def test_a_broker_that_hangs_midway_costs_the_call_and_nothing_of_it_stays(own_platform: Platform) -> None:
    platform = own_platform
    platform.deploy("hanging", HANDLER)
    ended(platform, accepted(platform.call_later("hanging", b"the first")))
    broker = platform.pid("broker")
    body = Body(40, lambda number: os.kill(broker, signal.SIGSTOP) if number == 20 else None)
    try:
        answer = send_later(platform, "hanging", body)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the refusal came while we were still sending
    else:
        assert answer.status == 503 and answer.headers["retry-after"]
    finally:
        os.kill(broker, signal.SIGCONT)
    is_empty(platform)
    assert [one.status for one in platform.client.calls("hanging")] == [200]


@pytest.mark.parametrize("role", ["worker 0", "broker", "proxy 0"])
def test_what_is_killed_while_the_function_gets_the_body_is_made_up_for(
    make_platform: Callable[..., Platform], role: str
) -> None:
    platform = make_platform(flags=("--worker-lost-after", "2s"))
    platform.deploy("read-again", HANDLER)
    body = Body(64)
    id = accepted(send_later(platform, "read-again", body))
    wait_for(lambda: platform.client.call_status(id).state != "queued", "the call to begin")
    platform.kill(role)
    assert printed(platform, "read-again") == []  # it begins with the whole body
    assert ended(platform, id).state == "done"
    assert printed(platform, "read-again")[-1] == body.digest
    is_empty(platform)


def test_a_cancelled_call_takes_its_body_along(own_platform: Platform) -> None:
    platform = own_platform
    platform.deploy("busy", HANDLER, env_vars={"sleep": "60"}, annotations={"stoker.dev/concurrency": "1"})
    running = accepted(send_later(platform, "busy", Body(18)))
    wait_for(lambda: "begun" in printed(platform, "busy"), "the first to run")
    queued = accepted(send_later(platform, "busy", Body(18)))
    assert len(store(platform)) == 2
    platform.client.cancel_call(queued)
    wait_for(lambda: len(store(platform)) == 1, "the end of the first body")
    platform.client.cancel_call(running)
    is_empty(platform)


def test_a_dead_call_keeps_its_body_for_replays(own_platform: Platform) -> None:
    platform = own_platform
    once = {"stoker.dev/retries": '{"max":1,"backoff":"10ms"}'}
    platform.deploy("dying", HANDLER, env_vars={"status": "503"}, annotations=once)
    body = Body(20)
    dead = accepted(send_later(platform, "dying", body))
    status = ended(platform, dead)
    assert (status.state, len(status.attempts)) == ("dead", 2)
    assert printed(platform, "dying").count(body.digest) == 2  # it was read again
    platform.deploy("dying", HANDLER, annotations=once)
    for _ in range(2):
        new = platform.client.replay_call(dead, headers={"X-Mode": "careful"})
        assert ended(platform, new).state == "done"
        assert printed(platform, "dying")[-1] == body.digest
    assert len(store(platform)) == 1
    assert ended(platform, platform.client.replay_call(dead, body=b"another")).state == "done"
    name = store(platform).pop()
    with_broker(platform, lambda client: purge(client, f"$O.stoker-bodies.*.{name}"))
    broken = ended(platform, platform.client.replay_call(dead))
    assert broken.state == "dead" and "piece 1 of 40 of its body is missing" in broken.reason
    with_broker(platform, lambda client: purge(client, ">"))
    with pytest.raises(NotFound, match="replay it with a body"):
        platform.client.replay_call(dead)


async def purge(client: Any, subject: str) -> None:
    await client.request(f"$JS.API.STREAM.PURGE.{BODIES}", b'{"filter":"%b"}' % subject.encode(), timeout=5)


@pytest.mark.parametrize(("more", "reason"), [(0, "SHA-256"), (100, f"has {18 * MIB + 100} bytes after 36 pieces")])
def test_a_body_that_is_not_what_it_was_never_reaches_the_function(
    own_platform: Platform, more: int, reason: str
) -> None:
    platform = own_platform
    platform.deploy("held", HANDLER, env_vars={"sleep": "5"}, annotations={"stoker.dev/concurrency": "1"})
    first = accepted(platform.call_later("held", b"holds the slot"))
    wait_for(lambda: "begun" in printed(platform, "held"), "the first to run")
    id = accepted(send_later(platform, "held", Body(18)))
    with_broker(platform, lambda client: falsify(client, more))
    status = ended(platform, id)
    assert status.state == "dead" and reason in status.reason and reason in status.attempts[0].reason
    assert ended(platform, first).state == "done"
    assert printed(platform, "held").count("begun") == 1


async def falsify(client: Any, more: int) -> None:
    """Put another last piece in the place of the real one, so many bytes longer."""
    stream = client.jetstream()
    bucket = await stream.object_store("stoker-bodies")
    subject = chunk_subject((await bucket.list())[0].name)
    last = await stream.get_last_msg(BODIES, subject)
    await stream.delete_msg(BODIES, last.seq)
    await stream.publish(subject, bytes(len(last.data) + more))


def test_a_large_call_that_is_sent_again_with_its_key_runs_once_and_its_second_body_goes(
    own_platform: Platform,
) -> None:
    platform = own_platform
    platform.deploy("keyed", HANDLER, env_vars={"sleep": "60"})
    body = Body(18)
    first = accepted(send_later(platform, "keyed", body, key="order-7"))
    wait_for(lambda: "begun" in printed(platform, "keyed"), "the call to run")
    again = send_later(platform, "keyed", body, key="order-7", chunked=True)
    assert accepted(again) == first and again.headers["x-stoker-repeated"] == "true"
    assert send_later(platform, "keyed", Body(18), key="order-7").status == 422
    wait_for(lambda: len(store(platform)) == 1, "the end of the other bodies")
    assert printed(platform, "keyed").count("begun") == 1
    platform.client.cancel_call(first)
    is_empty(platform)


def test_many_at_a_time_all_arrive(own_platform: Platform) -> None:
    platform = own_platform
    platform.deploy("many", HANDLER)
    bodies = [Body(17 + number) for number in range(4)]
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda body=body: ids.append(accepted(send_later(platform, "many", body))))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ended(platform, id).state for id in ids] == ["done"] * 4
    assert {body.digest for body in bodies} <= set(printed(platform, "many"))
    is_empty(platform)
