"""What the operator tells as Events, and that nothing depends on these."""

from __future__ import annotations

import asyncio
from pathlib import Path

from object_server import ObjectServer
from operated_functions import (
    EVENTS,
    FUNCTIONS,
    IMAGE,
    ask,
    by_hand,
    image,
    is_told,
    operated,
    revision,
    spec,
    told_events,
    until,
)


async def test_what_is_in_the_way_is_an_event_of_the_resource_and_one_only(store: ObjectServer, tmp_path: Path) -> None:
    async with operated(store, tmp_path, 3) as providers:
        ask(store, secrets=["nothing"])
        await until(lambda: is_told(store))
        for provider in providers:
            await provider.operator.resync()
        await asyncio.sleep(1.5)  # it is tried again
        ((kind, reason, message),) = told_events(store)
        assert (kind, reason) == ("Function", "Invalid") and "secret 'nothing' does not exist" in message
        ask(store, secrets=["other"])
        await until(lambda: len(told_events(store)) == 2)


async def test_who_may_not_tell_events_does_all_else(store: ObjectServer, tmp_path: Path) -> None:
    store.refused.add(("POST", EVENTS))
    async with operated(store, tmp_path):
        ask(store)
        await until(lambda: is_told(store))
        by_hand(store, "evil")
        await until(lambda: image(store) == IMAGE)
        await until(lambda: ("POST", EVENTS) in store.requests)
        ask(store, env_vars={"A": "1"})
        await until(lambda: revision(store) == 2)


async def test_nothing_waits_for_an_event_to_be_told(store: ObjectServer, tmp_path: Path) -> None:
    async def never_tell(method: str, path: str) -> None:
        if path == EVENTS:
            await asyncio.Event().wait()

    store.answer_late = never_tell
    async with operated(store, tmp_path) as (provider,):
        ask(store)
        await until(lambda: is_told(store))
        by_hand(store, "evil")
        await until(lambda: ("POST", EVENTS) in store.requests)
        async with asyncio.timeout(5):
            assert await provider.deploy(spec(env_vars={"A": "1"}), create=False) == 2


async def test_an_event_that_is_refused_is_not_tried_again_at_once(store: ObjectServer, tmp_path: Path) -> None:
    store.refused.add(("POST", EVENTS))
    async with operated(store, tmp_path):
        ask(store, secrets=["nothing"])
        await until(lambda: ("POST", EVENTS) in store.requests)
        store.objects[f"{FUNCTIONS}/greet"].pop("status")  # so that it is told once more
        store.put(f"{FUNCTIONS}/greet", store.objects[f"{FUNCTIONS}/greet"])
        await until(lambda: store.writes.count(("PATCH", f"{FUNCTIONS}/greet/status")) >= 2)
        await asyncio.sleep(0.2)
        assert store.writes.count(("POST", EVENTS)) == 1
