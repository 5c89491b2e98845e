"""The disk of the broker's folder is full: calls are refused with the reason, what is stored goes on, and all is well
again when there is room. The folder is a small file system of its own.
"""

from __future__ import annotations

import asyncio
import http.client
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from broker import RunningBroker
from large_bodies import HANDLER, MIB, Body, send_later, store
from running_platform import Answer, Platform, wait_for
from small_disk import FILLER, fill, small_disk

from stoker_gateway.proxy.enqueue import Enqueue
from stoker_gateway.queue.broker import PID_FILE
from stoker_gateway.queue.room import KEPT_FREE, Mender, write_error
from stoker_gateway.queue.streams import ensure_streams
from stoker_sdk.errors import StokerError
from stoker_sdk.messages import CallStatus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
    pytest.mark.timeout(240),
]


@pytest.fixture
def cramped(platform: Platform) -> Iterator[Platform]:
    """A platform whose broker has a small disk."""
    one = Platform(like=platform)
    try:
        with small_disk(one.data.queue):
            try:
                yield one.start()
            finally:
                print(one.log)
                if one._process is not None:
                    one.stop()
    finally:
        one.delete()


def accepted(answer: Answer) -> str:
    assert answer.status == 202, answer
    return answer.headers["x-call-id"]


def assert_full(answer: Answer) -> None:
    assert answer.status == 503 and answer.headers["retry-after"], answer
    assert answer.headers["x-stoker-error"] == "platform; queue-full"
    assert "disk is full" in answer.text and "MiB are left" in answer.text


def ended(platform: Platform, id: str, seconds: float = 40.0) -> CallStatus:
    def status() -> CallStatus | None:
        try:
            status = platform.client.call_status(id)
        except StokerError:  # the broker is being started again
            return None
        return status if status.state in ("done", "dead", "cancelled") else None

    return wait_for(status, f"the end of call {id}", seconds)


def test_calls_are_refused_before_the_disk_is_full_and_stored_ones_go_on(cramped: Platform) -> None:
    platform = cramped
    platform.deploy("going-on", HANDLER, env_vars={"sleep": "1"}, annotations={"stoker.dev/concurrency": "1"})
    ids = [accepted(platform.call_later("going-on", b"small")) for _ in range(3)]
    ids.append(accepted(send_later(platform, "going-on", Body(17))))
    fill(platform.data.queue, KEPT_FREE - MIB)
    wait_for(lambda: platform.call_later("going-on", b"small").status == 503, "a refusal")
    assert_full(platform.call_later("going-on", b"small"))
    assert_full(refused_at_its_head(platform, 20))
    assert [ended(platform, id).state for id in ids] == ["done"] * 4
    (platform.data.queue / FILLER).unlink()
    wait_for(lambda: platform.call_later("going-on", b"small").status == 202, "room again")
    wait_for(lambda: not store(platform), "an empty object store")


def refused_at_its_head(platform: Platform, mib: int) -> Answer:
    """The answer to a call whose body is not sent."""
    connection = http.client.HTTPConnection(*platform.http, timeout=60)
    connection.putrequest("POST", "/async-function/going-on")
    connection.putheader("Content-Length", str(mib * MIB))
    connection.endheaders()
    response = connection.getresponse()
    fields = {key.lower(): value for key, value in response.getheaders()}
    answer = Answer(response.status, fields, response.read())
    connection.close()
    return answer


def test_a_large_body_for_which_the_disk_becomes_too_small_leaves_nothing_behind(cramped: Platform) -> None:
    platform = cramped
    platform.deploy("too-small", HANDLER)
    accepted(platform.call_later("too-small", b"the first"))

    def between(number: int) -> None:
        if number == 30:
            wait_for(lambda: store(platform), "the first pieces")
            fill(platform.data.queue, KEPT_FREE + 8 * MIB)

    body = Body(100, between)
    try:
        answer = send_later(platform, "too-small", body)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the refusal came while we were still sending
    else:
        assert_full(answer)
    wait_for(lambda: not store(platform), "an empty object store")
    (platform.data.queue / FILLER).unlink()
    assert ended(platform, accepted(send_later(platform, "too-small", Body(20)))).state == "done"
    assert [one.state for one in platform.client.calls("too-small")] == ["done", "done"]


@pytest.mark.parametrize("killed", [False, True], ids=["", "and the broker is killed"])
def test_when_something_else_fills_the_disk_all_is_well_when_there_is_room_again(
    cramped: Platform, killed: bool
) -> None:
    platform = cramped
    platform.deploy("surprised", HANDLER, env_vars={"sleep": "2"}, annotations={"stoker.dev/concurrency": "2"})
    ids = [accepted(platform.call_later("surprised", b"small")) for _ in range(6)]
    ids.append(accepted(send_later(platform, "surprised", Body(17))))
    fill(platform.data.queue, 0)
    wait_for(lambda: platform.call_later("surprised", b"small").status == 503, "a refusal")
    wait_for(lambda: "the broker cannot write" in platform.log, "the broker's word", 40)
    assert "no space left on device" in platform.log
    if killed:
        platform.kill("broker")
        wait_for(lambda: platform.log.count("the broker ended") >= 2 or broker_answers(platform), "its next life", 40)
    (platform.data.queue / FILLER).unlink()
    wait_for(lambda: platform.call_later("surprised", b"small").status == 202, "room again", 60)
    states = [ended(platform, id, 60).state for id in ids]
    assert states == ["done"] * 7
    wait_for(lambda: not store(platform), "an empty object store")


def broker_answers(platform: Platform) -> bool:
    try:
        platform.client.calls("surprised")
    except StokerError:
        return False
    return True


@pytest.fixture
async def full_broker() -> AsyncIterator[RunningBroker]:
    one = RunningBroker()
    try:
        with small_disk(one.store, 96 * MIB):
            yield one.start()
            await one.close_clients()
    finally:
        one.delete()


async def test_a_broker_that_cannot_write_says_why_and_is_ended_only_when_there_is_room(
    full_broker: RunningBroker,
) -> None:
    client = await full_broker.client()
    assert await write_error(client) == ""  # no stream is there yet, which is no fault of the disk's
    await ensure_streams(client)
    assert await write_error(client) == ""
    fill(full_broker.store, MIB)
    with pytest.raises(TimeoutError):
        await client.request("stoker.call.openfaas-fn.greet.id", bytes(4 * MIB), timeout=0.5)
    assert await write_error(client) == "stoker-calls: no space left on device"
    assert await told_to_callers(full_broker) == "stoker-calls: no space left on device"
    mender = Mender(full_broker.store, full_broker.folder / PID_FILE)
    await mender.look(client)
    await asyncio.sleep(0.2)
    assert full_broker.runs
    (full_broker.store / FILLER).unlink()
    await mender.look(client)
    await asyncio.to_thread(wait_for, lambda: not full_broker.runs, "the end of the broker")
    full_broker.kill()
    full_broker.start()
    client = await full_broker.client()
    assert await write_error(client) == ""
    answer = await client.request("stoker.call.openfaas-fn.greet.id", b"x", timeout=5)
    assert b'"seq":1}' in answer.data


async def told_to_callers(broker: RunningBroker) -> str:
    """What a proxy says of a publish that the broker does not answer."""
    enqueue = Enqueue(broker.settings_file)
    enqueue.connect()
    while enqueue.client is None:
        await asyncio.sleep(0.01)
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    enqueue.explain(told.set_result)
    try:
        return await told
    finally:
        await enqueue.close()
