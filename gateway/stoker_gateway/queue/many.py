"""Many calls at once: cancel what waits, forget what is dead, replay what is dead. In steps that are bounded.

Each step deals with so many calls and returns where the next goes on; what came after the first step began is not
touched, so the steps end. A step that is repeated, by whoever, changes nothing twice. What each means:

* **Cancel** stores the outcome `cancelled` of every call that waits, for its first or its next attempt; calls that run
  go on. Workers must not begin what has an outcome, so they are told first to look up each call of the function before
  they run it ("doubt"); one that begins while its outcome is on its way may have run, as with a single cancel. At last
  all is taken out of the queue at once. The server purges everything up to a sequence, and what runs is mostly the
  oldest, so as long as some of it goes on, that is left for later (`StoredCalls.sweeps`), and workers pass by.
* **Forget** removes the outcomes of dead calls and their requests: as if a week had passed.
* **Replay** queues each dead call under an id that is made of the old one and the replay's own token.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stoker_gateway.queue import outcomes
from stoker_gateway.queue.outcomes import CANCELLED, DEAD, STATE_HEADER, Outcome
from stoker_gateway.queue.publisher import RESENT, STORED
from stoker_gateway.queue.replay import replayed
from stoker_gateway.queue.stored import BadCall
from stoker_gateway.queue.subjects import (
    CALLS,
    OUTCOMES,
    bell_subject,
    call_subject,
    doubt_subject,
    key_and_id,
    of_functions,
    outcome_subject,
)
from stoker_gateway.queue.subjects import DEAD as DEAD_STREAM
from stoker_sdk.broker.lookup import Found, all_of, at_sequence, page_of
from stoker_sdk.broker.requests import ask, last_sequence
from stoker_sdk.errors import BadInput, Conflict, NotFound, Unavailable
from stoker_sdk.messages import CallReplay, CallsChanged
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import format_rfc3339

if TYPE_CHECKING:
    from stoker_gateway.queue.calls import StoredCalls

_STEP_SECONDS: Final = 3.0
_PAGE: Final = 1000
"""Also the most subjects that the server looks up in one request."""
_MOST_LEFT: Final = 50
_IN_FLIGHT: Final = 500
_CURSOR: Final = re.compile(r"([a-z]):([0-9]{1,19}):([0-9]{1,19}):([0-9a-f]{0,32}|[0-9,]{0,1200})", re.ASCII)


@dataclass
class _Cursor:
    """Where a step begins: `stage` of the work, first sequence, last one, and what else the stage must remember."""

    stage: str
    sequence: int
    last: int
    rest: str = ""

    def __str__(self) -> str:
        return f"{self.stage}:{self.sequence}:{self.last}:{self.rest}"


def _read(after: str, stages: str) -> _Cursor | None:
    if not after:
        return None
    match = _CURSOR.fullmatch(after)
    if match is None or match[1] not in stages:
        raise BadInput(f"after is {after[:40]!r}: give what the step before has answered")
    return _Cursor(match[1], int(match[2]), int(match[3]), match[4])


# Cancel what waits: stage c stores outcomes, and remembers what runs; stage d takes out of the queue one by one what
# has ended, where too many run to remember


async def cancel_waiting(calls: StoredCalls, key: FunctionKey, after: str, limit: int) -> CallsChanged:
    """One step. Raises `BadInput`, `Unavailable`."""
    cursor = _read(after, "cd")
    if cursor is None:
        cursor = _Cursor("c", 1, await last_sequence(calls.client, CALLS))
        await calls.client.publish(doubt_subject(key), b"%d" % cursor.last)
    if cursor.stage == "d":
        return await _take_out(calls, key, cursor, limit)
    running = {id for id, one in (await calls.running("")).items() if one.key == str(key)}
    left = [int(one) for one in cursor.rest.split(",") if one]
    count, seen = 0, 0
    deadline = time.monotonic() + _STEP_SECONDS
    while seen < limit and time.monotonic() < deadline:
        page = await _page(calls, CALLS, of_functions("call", *key), cursor, limit - seen)
        if not page:
            return await _finish(calls, key, cursor, left, running, count)
        seen += len(page)
        waiting = [one for one in page if _id(one) not in running]
        left += [one.sequence for one in page if _id(one) in running]
        count += await _store_cancelled(calls, key, waiting)
    cursor.rest = ",".join(map(str, left[: _MOST_LEFT + 1]))
    return CallsChanged(count, str(cursor))


async def _store_cancelled(calls: StoredCalls, key: FunctionKey, waiting: Iterable[Found]) -> int:
    """How many had no outcome yet."""
    now = format_rfc3339(time.time_ns())
    results = await asyncio.gather(
        *(
            calls.publish(
                outcome_subject(key, id),
                outcomes.encode(Outcome(id, str(key), CANCELLED, one.at, now, reason="purged")),
                {STATE_HEADER: CANCELLED},
                stream=OUTCOMES,
            )
            for one in waiting
            if (id := _id(one))
        )
    )
    count = results.count(STORED)
    calls.counting.ended(str(key), CANCELLED, count)
    return count


async def _finish(
    calls: StoredCalls, key: FunctionKey, cursor: _Cursor, left: list[int], running: set[str], count: int
) -> CallsChanged:
    """All that waited has its outcome. What ran then may have ended, or wait now, or run still."""
    if len(left) <= _MOST_LEFT:
        found = [one for sequence in left if (one := await at_sequence(calls.client, CALLS, sequence)) is not None]
        count += await _store_cancelled(calls, key, [one for one in found if _id(one) not in running])
        if not await _sweep(calls, key, cursor.last, left):
            calls.sweeps[key] = lambda: _sweep(calls, key, cursor.last, left)
        return CallsChanged(count)
    return CallsChanged(count, str(_Cursor("d", 1, cursor.last)))


async def _sweep(calls: StoredCalls, key: FunctionKey, last: int, left: list[int]) -> bool:
    """Take everything up to `last` out of the queue, unless one of the `left` ones has not ended yet."""
    found = [one for sequence in left if (one := await at_sequence(calls.client, CALLS, sequence)) is not None]
    if len(await _outcomes_of(calls, key, found)) < len(found):
        return False
    await _purge(calls, CALLS, {"filter": of_functions("call", *key), "seq": last + 1})
    return True


async def _take_out(calls: StoredCalls, key: FunctionKey, cursor: _Cursor, limit: int) -> CallsChanged:
    deadline = time.monotonic() + _STEP_SECONDS
    seen = 0
    while seen < limit and time.monotonic() < deadline:
        page = await _page(calls, CALLS, of_functions("call", *key), cursor, limit - seen)
        if not page:
            return CallsChanged(0)
        seen += len(page)
        over = await _outcomes_of(calls, key, page)
        await _delete(calls, CALLS, [one.sequence for one in page if _id(one) in over])
    return CallsChanged(0, str(cursor))


# Cancel what runs


async def cancel_running(calls: StoredCalls, key: FunctionKey) -> CallsChanged:
    """All that runs at this moment, in one step: there are no more than slots."""
    count = 0
    for id, one in (await calls.running("")).items():
        if one.key == str(key):
            try:
                await calls.cancel(id)
                count += 1
            except (Conflict, NotFound):  # it has ended meanwhile
                continue
    return CallsChanged(count)


# Forget what is dead


async def forget_dead(calls: StoredCalls, key: FunctionKey, after: str, limit: int) -> CallsChanged:
    """One step. Raises `BadInput`, `Unavailable`."""
    cursor = _read(after, "o")
    if cursor is None:
        cursor = _Cursor("o", 1, await last_sequence(calls.client, OUTCOMES))
        until = await last_sequence(calls.client, DEAD_STREAM) + 1
        await _purge(calls, DEAD_STREAM, {"filter": of_functions("dead", *key), "seq": until})
    count, seen = 0, 0
    deadline = time.monotonic() + _STEP_SECONDS
    while seen < limit and time.monotonic() < deadline:
        page = await _page(calls, OUTCOMES, of_functions("outcome", *key), cursor, limit - seen)
        if not page:
            return CallsChanged(count)
        seen += len(page)
        dead = [one for one in page if one.headers.get(STATE_HEADER) == DEAD]
        # One that is still queued, because its worker was killed before it said that it had ended, would run again.
        queued = await all_of(calls.client, CALLS, [call_subject(key, _id(one)) for one in dead])
        await _delete(calls, CALLS, [one.sequence for one in queued])
        await _delete(calls, OUTCOMES, [one.sequence for one in dead])
        count += len(dead)
    return CallsChanged(count, str(cursor))


# Replay what is dead


async def replay_dead(
    calls: StoredCalls, key: FunctionKey, changes: CallReplay, after: str, limit: int
) -> CallsChanged:
    """One step. Raises `BadInput`, `Unavailable`."""
    cursor = _read(after, "r")
    if cursor is None:
        cursor = _Cursor("r", 1, await last_sequence(calls.client, DEAD_STREAM), uuid.uuid4().hex)
    ids: dict[str, str] = {}
    skipped = 0
    page = await _page(calls, DEAD_STREAM, of_functions("dead", *key), cursor, min(limit, _PAGE))
    ended = await _outcomes_of(calls, key, page)
    sending = []
    for one in page:
        old = _id(one)
        if ended.get(old) != DEAD:
            continue  # it was forgotten, or has not ended yet
        new = hashlib.sha256(f"{cursor.rest} {old}".encode()).hexdigest()[:32]
        try:
            fresh, payload = replayed(one.data, old, new, changes)
        except BadCall:
            skipped += 1
            continue
        if fresh.body is not None:
            await calls.share(fresh.body, f"{key.namespace}.{key.name}.{new}")
        ids[old] = new
        # As for ticks: storing it again must run nothing again, so the worker looks for an outcome first.
        again = {"Nats-Msg-Id": new, RESENT: "1"}
        sending.append(calls.publish(call_subject(key, new), payload, again, stream=CALLS))
    await asyncio.gather(*sending)
    if ids:
        await calls.client.publish(bell_subject(key))
    return CallsChanged(len(ids), str(cursor) if page else "", skipped, ids)


# Parts


async def _page(calls: StoredCalls, stream: str, filter: str, cursor: _Cursor, most: int) -> list[Found]:
    """The next messages up to the last one; moves the cursor behind them. Empty: there are no more."""
    while cursor.sequence <= cursor.last:
        page = await page_of(calls.client, stream, filter, cursor.sequence, min(most, _PAGE))
        page = [one for one in page if one.sequence <= cursor.last]
        cursor.sequence = page[-1].sequence + 1 if page else cursor.last + 1
        if ours := [one for one in page if key_and_id(one.subject) is not None]:
            return ours
    return []


async def _outcomes_of(calls: StoredCalls, key: FunctionKey, page: list[Found]) -> dict[str, str]:
    """The states of those that have ended, by id."""
    found = await all_of(calls.client, OUTCOMES, [outcome_subject(key, _id(one)) for one in page])
    return {_id(one): one.headers.get(STATE_HEADER, "") for one in found}


async def _purge(calls: StoredCalls, stream: str, what: dict[str, object]) -> None:
    error = await ask(calls.client, f"STREAM.PURGE.{stream}", what)
    if error is not None:
        raise Unavailable(f"the broker does not purge {stream}: {error.description}")


async def _delete(calls: StoredCalls, stream: str, sequences: list[int]) -> None:
    """What is gone already is none of our business."""
    places = asyncio.Semaphore(_IN_FLIGHT)

    async def delete(sequence: int) -> None:
        async with places:
            await ask(calls.client, f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})

    await asyncio.gather(*map(delete, sequences))


def _id(found: Found) -> str:
    named = key_and_id(found.subject)
    return named[1] if named else ""
