"""Large bodies in a real nats-server's object store: any NATS tool reads them, and the broom leaves what is needed."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from broker import RunningBroker
from nats.js.errors import APIError

from stoker_gateway.queue.bodies import (
    chunk_subject,
    decode_meta,
    made_at,
    meta_subject,
    name_in,
    new_name,
    shared_meta,
)
from stoker_gateway.queue.body_sweep import sweep
from stoker_gateway.queue.link import Link
from stoker_gateway.queue.publisher import STORED, TIMEOUT, Publisher
from stoker_gateway.queue.stored import BodyRef
from stoker_gateway.queue.streams import ensure_streams
from stoker_gateway.queue.subjects import BODIES, BUCKET, call_subject, dead_subject
from stoker_gateway.queue.upload import Upload
from stoker_sdk.broker.connection import connect
from stoker_sdk.broker.lookup import page_of
from stoker_sdk.broker.settings import BrokerSettings
from stoker_sdk.errors import NotFound
from stoker_sdk.names import FunctionKey

KEY = FunctionKey("openfaas-fn", "greet")
MIB = 1 << 20


class Caller:
    """A source that should send no more while it is held."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()

    def hold_body(self) -> None:
        self.free.clear()

    def release_body(self) -> None:
        self.free.set()


class Store:
    """The store of one broker, with a publisher."""

    def __init__(self, broker: RunningBroker, client: Any, publisher: Publisher) -> None:
        self.broker = broker
        self.client = client
        self.publisher = publisher
        self.forgotten: list[str] = []

    async def upload(self, body: bytes, call: str = "", *, step: int = 100_000, kill_at: int = -1) -> BodyRef:
        done: asyncio.Future[BodyRef] = asyncio.get_running_loop().create_future()
        caller = Caller()
        upload = Upload(
            self.publisher, caller, lambda result: done.set_exception(OSError(result)), self.forgotten.append
        )
        for start in range(0, len(body), step):
            upload.add(body[start : start + step])
            if start <= kill_at < start + step:
                self.broker.kill()
                self.broker.start()
            while not caller.free.is_set():
                assert not done.done(), done.result()
                await asyncio.sleep(0.001)
        upload.end(call or f"{KEY.namespace}.{KEY.name}.an-id", done.set_result)
        return await done

    async def publish(self, subject: str) -> None:
        stored: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        assert self.publisher.publish(subject, b"x", stored.set_result)
        assert await stored == STORED

    async def names(self) -> set[str]:
        found = await page_of(self.client, BODIES, f"$O.{BUCKET}.>", 1, 1000)
        return {name_in(one.subject) for one in found}


@pytest.fixture
async def store(broker: RunningBroker) -> AsyncIterator[Store]:
    link = Link(broker.settings, "uploads")
    publisher = Publisher(link, deadline=10)
    client = await connect(broker.settings, "streams")
    await ensure_streams(client)
    yield Store(broker, client, publisher)
    publisher.close()
    link.close()
    await client.close()


async def test_any_client_of_nats_reads_what_was_uploaded(store: Store) -> None:
    body = os.urandom(3 * MIB + 17)
    ref = await store.upload(body)
    assert (ref.size, ref.chunks, ref.digest) == (len(body), 7, hashlib.sha256(body).hexdigest())
    bucket = await store.client.jetstream().object_store(BUCKET)
    read = await bucket.get(ref.name)  # checks size and digest itself
    assert read.data == body and read.info.chunks == 7
    assert [one.name for one in await bucket.list()] == [ref.name]


async def test_pieces_keep_their_order_through_a_kill_of_the_broker(store: Store) -> None:
    body = os.urandom(8 * MIB)
    ref = await store.upload(body, kill_at=4 * MIB)
    read = await (await store.client.jetstream().object_store(BUCKET)).get(ref.name)
    assert read.data == body


async def test_without_a_broker_it_fails_in_time_and_the_caller_is_not_held_for_ever() -> None:
    link = Link(BrokerSettings("nats://127.0.0.1:1"), "uploads")
    publisher, forgotten = Publisher(link, deadline=0.3), list[str]()
    failures: list[str] = []
    caller = Caller()
    upload = Upload(publisher, caller, failures.append, forgotten.append)
    upload.add(bytes(2 * MIB))
    assert not caller.free.is_set()
    async with asyncio.timeout(5):
        while not failures:
            await asyncio.sleep(0.01)
    assert failures == [TIMEOUT] and forgotten == [upload.name]
    upload.add(bytes(MIB))
    upload.give_up()
    assert failures == [TIMEOUT] and forgotten == [upload.name] and caller.free.is_set()
    publisher.close()
    link.close()


async def test_the_broom_takes_what_no_call_needs_and_nothing_young(store: Store) -> None:
    wanted, dead, replayed, orphan = [await store.upload(b"x" * 10, f"openfaas-fn.greet.{id}") for id in "abcd"]
    await store.publish(call_subject(KEY, "a"))
    await store.publish(dead_subject(KEY, "b"))
    await store.publish(call_subject(KEY, "new"))
    meta, headers = await shared_meta(store.client, replayed, "openfaas-fn.greet.new")
    await store.client.jetstream().publish(meta_subject(replayed.name), meta, headers=headers)
    with pytest.raises(APIError):  # another replay, at the same time
        await store.client.jetstream().publish(meta_subject(replayed.name), meta, headers=headers)
    half = new_name()
    await store.publish(chunk_subject(half))
    await store.publish(chunk_subject("a-strangers"))
    names = {wanted.name, dead.name, replayed.name, orphan.name, half, "a-strangers"}
    assert await sweep(store.client) == [] and await store.names() == names
    assert set(await sweep(store.client, min_age=-10)) == {orphan.name, half}
    assert await store.names() == names - {orphan.name, half}


async def test_the_oldest_bodies_of_dead_calls_go_when_they_are_too_many(store: Store) -> None:
    refs = []
    for id in ("a", "b", "c"):
        refs.append(await store.upload(os.urandom(MIB), f"openfaas-fn.greet.{id}"))
        await store.publish(dead_subject(KEY, id))
    assert await sweep(store.client, max_dead=4 * MIB) == []
    gone = await sweep(store.client, max_dead=2 * MIB)
    assert len(gone) == 1 and await store.names() == {ref.name for ref in refs} - set(gone)
    with pytest.raises(NotFound):
        await shared_meta(store.client, next(ref for ref in refs if ref.name in gone), "x.y.z")


def test_names_tell_their_age_and_foreign_subjects_nothing() -> None:
    name = new_name()
    assert made_at(name) > 1_700_000_000 and made_at("a strangers") == 0
    assert name_in(chunk_subject(name)) == name_in(meta_subject(name)) == name
    assert name_in("stoker.call.a.b.c") == name_in("$O.stoker-bodies.M.###") == ""
    assert decode_meta(b"{}") is None and decode_meta(b"\xff") is None
