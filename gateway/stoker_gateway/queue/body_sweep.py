"""Control's broom for the object store: bodies that no call needs any more, whoever was killed before he removed them.

A call that is done or cancelled takes its body along at once; one that is dead keeps it for as long as it can be
replayed. What is found here is what a killed process left, and what has been dead too long.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stoker_gateway.queue.bodies import ObjectMeta, decode_meta, made_at, meta_subject, name_in, remove
from stoker_gateway.queue.subjects import BODIES, BUCKET, CALLS, DEAD, call_subject, dead_subject
from stoker_gateway.queue.upload import MOST_SECONDS
from stoker_sdk.broker.lookup import last_of
from stoker_sdk.broker.requests import ask_whole
from stoker_sdk.names import FunctionKey

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger("stoker.control")

MIN_AGE: Final = 2 * MOST_SECONDS
"""Seconds. A younger one may still be on its way, and have no call yet."""
MAX_DEAD: Final = 16 * 1024**3
"""Bytes of the bodies of dead calls; more, and the oldest go."""


class _State(msgspec.Struct, frozen=True):
    bytes: int = 0
    subjects: dict[str, int] | None = None


class _Info(msgspec.Struct, frozen=True):
    state: _State = _State()


async def sweep(client: Client, *, min_age: float = MIN_AGE, max_dead: int = MAX_DEAD) -> list[str]:
    """Remove what is not needed, and return its names. Raises `Unavailable`."""
    state = await _state(client)
    names = sorted({name_in(subject) for subject in state.subjects or {}}, key=made_at)
    crowded = state.bytes > max_dead
    before = time.time() - min_age
    removed, dead = [], []
    for name in names:
        made = made_at(name)
        if not made or (made > before and not crowded):
            continue
        meta = await _meta(client, name)
        need = await _need(client, meta) if meta else ""
        if need == DEAD and meta is not None:
            dead.append(meta)
        elif not need and made <= before:
            removed.append(name)
    removed += _too_many(dead, max_dead)
    for name in removed:
        await remove(client, name)
    if removed:
        log.info("%d large bodies that no call needs any more are removed", len(removed))
    return removed


def _too_many(dead: list[ObjectMeta], most: int) -> list[str]:
    """The oldest of these, so that the others have no more bytes together."""
    total, names = sum(meta.size for meta in dead), []
    for meta in dead:
        if total <= most:
            break
        total -= meta.size
        names.append(meta.name)
    return names


async def _state(client: Client) -> _State:
    request: dict[str, Any] = {"subjects_filter": f"$O.{BUCKET}.*.*"}
    return msgspec.json.decode(await ask_whole(client, f"STREAM.INFO.{BODIES}", request), type=_Info).state


async def _meta(client: Client, name: str) -> ObjectMeta | None:
    found = await last_of(client, BODIES, meta_subject(name))
    return decode_meta(found.data) if found else None


async def _need(client: Client, meta: ObjectMeta) -> str:
    """The stream that holds a call which needs it, open ones first; empty if there is none."""
    calls = [parts for call in meta.calls if len(parts := call.split(".")) == 3]
    for stream, subject in ((CALLS, call_subject), (DEAD, dead_subject)):
        for namespace, name, id in calls:
            if await last_of(client, stream, subject(FunctionKey(namespace, name), id)) is not None:
                return stream
    return ""
