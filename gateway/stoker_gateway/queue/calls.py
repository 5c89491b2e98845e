"""Stored calls as control shows and changes them. There is no index of ours: all is read from the streams when asked.

A listing goes through the calls without an outcome first (some that have one may still be in the queue), then through
the outcomes; `c:SEQUENCE` and `o:SEQUENCE` are its cursors. What runs now is asked of the workers, who are given a
moment to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from stoker_gateway.queue import bodies, kept, losses, outcomes
from stoker_gateway.queue.callback_queue import WAITING
from stoker_gateway.queue.counters import CallCounting
from stoker_gateway.queue.depths import Depths
from stoker_gateway.queue.kept import BadAnswer, KeptAnswer
from stoker_gateway.queue.link import Link
from stoker_gateway.queue.listing import Subjects, marked_by, pages
from stoker_gateway.queue.outcomes import CANCELLED, DEAD, STATE_HEADER, STATES, Outcome, Running
from stoker_gateway.queue.publisher import EXISTS, STORED, Publisher
from stoker_gateway.queue.replay import replayed
from stoker_gateway.queue.room import Mender
from stoker_gateway.queue.stored import BadCall, BodyRef, decode
from stoker_gateway.queue.streams import ensure_streams, trim
from stoker_gateway.queue.subjects import (
    ATTEMPTS,
    CALLBACKS,
    CALLS,
    CANCEL,
    OUTCOMES,
    RESULTS,
    RUNNING,
    attempt_subject,
    bell_subject,
    by_id,
    call_subject,
    callback_subject,
    delivery_subject,
    key_and_id,
    of_functions,
    outcome_subject,
    result_subject,
)
from stoker_gateway.queue.subjects import DEAD as DEAD_STREAM
from stoker_gateway.queue.upkeep import keep_up
from stoker_gateway.queue.waiting import Waiting
from stoker_sdk.broker.connection import check_server, connect, server_info
from stoker_sdk.broker.lookup import Found, all_of, any_of, last_of, subjects_of
from stoker_sdk.broker.requests import ask
from stoker_sdk.broker.settings import read_settings
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError, Unavailable
from stoker_sdk.messages import CallAttempt, CallbackStatus, CallReplay, CallStatus
from stoker_sdk.names import FunctionKey, key_from_route
from stoker_sdk.units import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats.aio.client import Client

log = logging.getLogger("stoker.control")

_START_SECONDS: Final = 5.0
_RUNNING_SECONDS: Final = 0.1
_PUBLISH_SECONDS: Final = 5.0
_FIRST_LOOK_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 30.0
_SCANNED: Final = 500
_OPEN_STATES: Final = ("queued", "running", "retrying")
_CURSOR: Final = re.compile(r"([co]):([0-9]{1,19})")


@dataclass(frozen=True)
class CallFilter:
    """Empty texts mean all."""

    namespace: str = ""
    function: str = ""
    state: str = ""


class StoredCalls:
    """Control's connection to the broker. It makes the streams, and again whenever the broker comes back."""

    def __init__(self, broker_file: Path, mender: Mender | None = None) -> None:
        self.counting = CallCounting()
        self.depths = Depths(lambda: self.client)
        self.sweeps: dict[FunctionKey, Callable[[], Awaitable[bool]]] = {}
        """What is left of cancelling many: to be called now and then until it is done."""
        self._file = broker_file
        self._mender = mender
        self._client: Client | None = None
        self._link: Link | None = None
        self._publisher: Publisher | None = None
        self._starting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and make the streams; a broker that does not answer soon is waited for in the background."""
        self._starting = asyncio.get_running_loop().create_task(self._connect(), name="broker")
        deadline = time.monotonic() + _START_SECONDS
        while self._client is None and not self._starting.done() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if self._client is None:
            log.warning("the broker does not answer yet: async calls are refused until it does")

    async def _connect(self) -> None:
        try:
            settings = read_settings(self._file)
            client = await connect(settings, "stoker control")
            self._link = Link(settings, "stoker control publishes")
            publisher = Publisher(self._link, deadline=_PUBLISH_SECONDS)
        except (OSError, ValueError, StokerError) as error:
            log.error("no connection to the broker: %s", error)
            return
        told = ""
        while True:
            try:
                check_server(server_info(client), settings)
                await ensure_streams(client)
                break
            except Unavailable as error:
                if str(error) != told:
                    log.warning("no async calls yet: %s", told := str(error))
                await asyncio.sleep(1)
        self._client, self._publisher = client, publisher
        await asyncio.gather(self._look_after(client), keep_up(client, self._mender))

    async def _look_after(self, client: Client) -> None:
        """Now and then: ring for what waits, which a worker may not have heard of, sweep, and shorten what is kept."""
        waiting = Waiting(lambda: self.client)
        pause = _FIRST_LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LOOK_SECONDS)
            try:
                for key in await waiting.functions():
                    await client.publish(bell_subject(key))
                for key, sweep in list(self.sweeps.items()):
                    if await sweep():
                        del self.sweeps[key]
                await trim(client)
            except Unavailable as error:
                log.debug("%s", error)

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        if self._publisher is not None:
            self._publisher.close()
        if self._link is not None:
            self._link.close()
        if self._client is not None:
            await self._client.close()

    @property
    def client(self) -> Client:
        if self._client is None or not self._client.is_connected:
            raise Unavailable("the broker does not answer: async calls cannot be seen now; try again later")
        return self._client

    # One call

    async def show(self, id: str) -> CallStatus:
        """Raises `NotFound`, `Unavailable`."""
        found = await any_of(self.client, OUTCOMES, by_id("outcome", id))
        if found is None:
            waiting = await any_of(self.client, CALLS, by_id("call", id))
            if waiting is not None:
                return (await self._statuses_of_open([waiting], await self.running(id)))[0]
            found = await any_of(self.client, OUTCOMES, by_id("outcome", id))  # it may just have ended
        if found is None:
            raise NotFound(f"no such call: {id!r}; it was never accepted, or is forgotten after a week")
        return replace(_status_of_outcome(found), callback=await self._callback(found))

    async def _callback(self, outcome: Found) -> CallbackStatus | None:
        """What became of the callback of a call that has ended; None: it has none."""
        named = key_and_id(outcome.subject)
        if named is None:
            return None
        told = await last_of(self.client, ATTEMPTS, delivery_subject(*named))
        try:
            status = msgspec.json.decode(told.data, type=CallbackStatus) if told else CallbackStatus(WAITING)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            status = CallbackStatus(WAITING)
        if status.state != WAITING or await last_of(self.client, CALLBACKS, callback_subject(*named)) is not None:
            return status
        return None

    async def cancel(self, id: str) -> None:
        """Its outcome is stored first, so whatever a worker may report later is refused. Raises also `Conflict`."""
        found = await any_of(self.client, CALLS, by_id("call", id))
        named = key_and_id(found.subject) if found else None
        if found is None or named is None:
            status = await self.show(id)
            raise Conflict(f"call {id} has ended already: it is {status.state}")
        key = named[0]
        now = format_rfc3339(time.time_ns())
        outcome = Outcome(id, str(key), CANCELLED, found.at, now, reason="cancelled")
        result = await self.publish(outcome_subject(key, id), outcomes.encode(outcome), {STATE_HEADER: CANCELLED})
        if result == EXISTS:
            raise Conflict(f"call {id} has ended already")
        self.counting.ended(str(key), CANCELLED)
        error = await ask(self.client, f"STREAM.PURGE.{CALLS}", {"filter": call_subject(key, id)})
        if error is not None:
            raise Unavailable(f"call {id} is cancelled, but not removed from the queue: {error.description}")
        await self.client.publish(CANCEL, id.encode())
        if body := _body_of(found.data):
            with contextlib.suppress(Unavailable):  # it is swept later
                await bodies.remove(self.client, body.name)

    async def replay(self, id: str, changes: CallReplay) -> CallStatus:
        """Queue the request of a dead call under a new id; returns the new call."""
        status = await self.show(id)
        if status.state != DEAD:
            raise Conflict(f"call {id} is {status.state}: only dead calls are replayed")
        found = await any_of(self.client, DEAD_STREAM, by_id("dead", id))
        if found is None:
            raise NotFound(f"the request of call {id} is not kept any more")
        try:
            fresh, payload = replayed(found.data, id, new := uuid.uuid4().hex, changes)
        except BadCall as error:
            raise Conflict(f"call {id} can never be run: {error}") from error
        key = key_from_route(fresh.key)
        if fresh.body is not None:
            await self.share(fresh.body, f"{key.namespace}.{key.name}.{new}")
        result = await self.publish(call_subject(key, new), payload)
        if result != STORED:
            raise Unavailable(f"the broker refuses the call: {result}")
        await self.client.publish(bell_subject(key))
        return CallStatus(new, key.name, key.namespace, "queued", format_rfc3339(fresh.at), replay_of=id)

    async def result(self, id: str) -> tuple[KeptAnswer, bytes]:
        """The answer that an ended call got, and its body. Raises `NotFound`, `Conflict`, `Unavailable`."""
        status = await self.show(id)
        if status.state in _OPEN_STATES:
            raise Conflict(f"call {id} has not ended yet: it is {status.state}")
        if not status.result_until:
            raise NotFound(f"the answer of call {id} is not kept: {_why_not_kept(status)}")
        found = await last_of(self.client, RESULTS, result_subject(FunctionKey(status.namespace, status.function), id))
        if found is None:
            raise NotFound(f"the answer of call {id} is not kept any more: it was until {status.result_until} at most")
        try:
            return kept.decode(found.data)
        except BadAnswer as error:
            raise NotFound(f"what is kept of call {id} is not its answer: {error}") from error

    async def share(self, body: BodyRef, call: str) -> None:
        """A large body is needed by this call too."""
        meta, headers = await bodies.shared_meta(self.client, body, call)
        await self.publish(bodies.meta_subject(body.name), meta, headers)

    # Many

    async def page(self, wanted: CallFilter, after: str, limit: int) -> list[CallStatus]:
        if wanted.state and wanted.state not in (*STATES, *_OPEN_STATES):
            raise BadInput(f"state {wanted.state[:20]!r} is not one of {', '.join((*_OPEN_STATES, *STATES))}")
        stage, sequence = _cursor(after)
        page: list[CallStatus] = []
        if stage == "c" and wanted.state not in STATES:
            page = await self._open_calls(wanted, sequence, limit)
        if len(page) < limit and wanted.state not in _OPEN_STATES:
            page += await self._ended_calls(wanted, sequence if stage == "o" else 1, limit - len(page))
        return page

    async def _open_calls(self, wanted: CallFilter, sequence: int, limit: int) -> list[CallStatus]:
        running = asyncio.get_running_loop().create_task(self.running(""))  # the first page comes meanwhile
        page: list[CallStatus] = []
        try:
            async for found in await self._open_messages(wanted, sequence, limit, running):
                waiting = await self._without_ended(found)
                statuses = await self._statuses_of_open(waiting, await running)
                page += [status for status in statuses if wanted.state in ("", status.state)]
                if len(page) >= limit:
                    break
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return page[:limit]

    async def _open_messages(
        self, wanted: CallFilter, sequence: int, limit: int, running: asyncio.Task[dict[str, Running]]
    ) -> AsyncIterator[list[Found]]:
        filter, size = of_functions("call", wanted.namespace, wanted.function), _page_size(wanted, limit)
        if wanted.state == "running":
            known = _subjects_of_running(await running, wanted)
            return pages(self.client, CALLS, filter, sequence, size, known, look=0)
        if wanted.state == "retrying":
            few = marked_by(self.client, ATTEMPTS, "attempt", "call", wanted.namespace, wanted.function)
            return pages(self.client, CALLS, filter, sequence, size, few)
        return pages(self.client, CALLS, filter, sequence, size)

    async def _ended_calls(self, wanted: CallFilter, sequence: int, limit: int) -> list[CallStatus]:
        few = None
        if wanted.state == DEAD:
            few = marked_by(self.client, DEAD_STREAM, "dead", "outcome", wanted.namespace, wanted.function)
        filter = of_functions("outcome", wanted.namespace, wanted.function)
        page: list[CallStatus] = []
        async for found in pages(self.client, OUTCOMES, filter, sequence, _page_size(wanted, limit), few):
            page += [_status_of_outcome(one) for one in found if wanted.state in ("", one.headers.get(STATE_HEADER))]
            if len(page) >= limit:
                break
        return page[:limit]

    # Parts

    async def _without_ended(self, calls: list[Found]) -> list[Found]:
        """A call that has ended is forgotten by the queue a moment later."""
        named = [(call, key_and_id(call.subject)) for call in calls]
        wanted = {outcome_subject(*name): call for call, name in named if name is not None}
        ended = await subjects_of(self.client, OUTCOMES, list(wanted))
        return [call for subject, call in wanted.items() if subject not in ended]

    async def _statuses_of_open(self, calls: list[Found], running: dict[str, Running]) -> list[CallStatus]:
        named = [(call, *name) for call in calls if (name := key_and_id(call.subject)) is not None]
        waiting = [attempt_subject(key, id) for _, key, id in named if id not in running]
        attempts = {one.subject: _attempts(one) for one in await all_of(self.client, ATTEMPTS, waiting)}
        return [
            _status_of_open(call, key, id, running.get(id), attempts.get(attempt_subject(key, id), []))
            for call, key, id in named
        ]

    async def running(self, id: str) -> dict[str, Running]:
        """By id; what no worker has said within a moment counts as not running."""
        client = self.client
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        running: dict[str, Running] = {}
        try:
            await client.publish(RUNNING, id.encode(), reply=inbox)
            async with asyncio.timeout(_RUNNING_SECONDS):
                while not (id and running):
                    message = await answers.next_msg(timeout=_PUBLISH_SECONDS)
                    running |= {one.id: one for one in outcomes.decode_running(message.data)}
        except (TimeoutError, msgspec.MsgspecError):
            pass
        finally:
            await answers.unsubscribe()
        return running

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, *, stream: str = ""
    ) -> str:
        """`STORED` or `EXISTS`. Raises `Unavailable`. Many that name their stream are stored in batches."""
        publisher = self._publisher
        stored: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if publisher is None or not publisher.publish(subject, payload, stored.set_result, headers, stream=stream):
            raise Unavailable("the broker does not answer: try again later")
        result = await asyncio.shield(stored)
        if result not in (STORED, EXISTS):
            raise Unavailable(f"the broker did not store it: {result}")
        return result


def _body_of(message: bytes) -> BodyRef | None:
    """The large body of a stored call, if it has one."""
    try:
        call, _ = decode(message)
    except BadCall:
        return None
    return call.body if not call.replay_of else None  # a replay's belongs to the dead call


def _page_size(wanted: CallFilter, limit: int) -> int:
    """Where only some count, more are gone through at a time."""
    return max(limit, _SCANNED) if wanted.state else limit


def _subjects_of_running(running: dict[str, Running], wanted: CallFilter) -> Subjects:
    keys = [(key_from_route(one.key), one.id) for one in running.values()]

    async def subjects() -> list[str]:
        return [
            call_subject(key, id)
            for key, id in keys
            if wanted.namespace in ("", key.namespace) and wanted.function in ("", key.name)
        ]

    return subjects


def _attempts(found: Found) -> list[CallAttempt]:
    try:
        return losses.closed(outcomes.decode_attempts(found.data))
    except msgspec.MsgspecError:
        return []


def _status_of_open(
    found: Found, key: FunctionKey, id: str, runs: Running | None, attempts: list[CallAttempt]
) -> CallStatus:
    return CallStatus(
        id,
        key.name,
        key.namespace,
        "running" if runs else "retrying" if attempts else "queued",
        found.at,
        started_at=runs.started_at if runs else attempts[0].started_at if attempts else "",
        status=attempts[-1].status if attempts else 0,
        attempts=attempts,
        cursor=f"c:{found.sequence}",
    )


def _status_of_outcome(found: Found) -> CallStatus:
    cursor = f"o:{found.sequence}"
    named = key_and_id(found.subject)
    key, id = named if named else (FunctionKey("", ""), "")
    try:
        outcome = outcomes.decode_outcome(found.data)
    except msgspec.MsgspecError as error:
        reason = f"its outcome cannot be read: {error}"
        return CallStatus(id, key.name, key.namespace, DEAD, found.at, reason=reason, cursor=cursor)
    return CallStatus(
        id,
        key.name,
        key.namespace,
        outcome.state if outcome.state in STATES else DEAD,
        outcome.created_at,
        outcome.started_at,
        outcome.ended_at,
        outcome.status,
        outcome.reason,
        outcome.answer,
        outcome.attempts,
        cursor,
        outcome.replay_of,
        outcome.result_until,
    )


def _why_not_kept(status: CallStatus) -> str:
    if status.state == CANCELLED:
        return "it was cancelled"
    if not status.status:
        return "it got none"
    return "ask for it by `result` of the function, or by the header X-Stoker-Keep-Result of the call"


def _cursor(after: str) -> tuple[str, int]:
    """The stage and the sequence to go on at."""
    if not after:
        return "c", 1
    match = _CURSOR.fullmatch(after)
    if match is None:
        raise BadInput(f"after is {after[:40]!r}: give the cursor of the last call of the page before")
    return match[1], int(match[2]) + 1
