"""Ticks in JetStream: their calls in the stream of all calls, and the mark of each schedule.

A mark is the one message of its subject `stoker.schedule.NAMESPACE.NAME.DIGEST`; its revision is its sequence number,
and the broker compares that before it replaces it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stoker_gateway.queue.scheduler import Mark, Marked
from stoker_gateway.queue.stored import VERSION, StoredCall, encode
from stoker_gateway.queue.subjects import OUTCOMES, bell_subject, call_subject, outcome_subject
from stoker_gateway.queue.ticks import Plan, TickCall
from stoker_sdk.errors import Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

SCHEDULES: Final = "stoker-schedules"

_SECOND: Final = 10**9
_LONGEST: Final = 400 * 86400 * _SECOND
"""Marks outlast the pause of a yearly schedule; that of a function which nobody saw go leaves at last."""

_STREAM: Final[dict[str, Any]] = {
    "name": SCHEDULES,
    "subjects": ["stoker.schedule.*.*.*"],
    "retention": "limits",
    "storage": "file",
    "max_msgs_per_subject": 1,
    "max_age": _LONGEST,
    "allow_direct": True,
}
_NAME_IN_USE: Final = 10058
_WRONG_REVISION: Final = (10071, 10164)
_TIMEOUT: Final = 5.0
_LOOK_TWICE: Final = {"Stoker-Resent": "1"}
"""Tells the worker to look for an outcome before it runs the call (`scheduler.py` says why)."""


class _Error(msgspec.Struct, frozen=True):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct, frozen=True):
    error: _Error | None = None
    seq: int = 0


class TickStore:
    """Both sides of the scheduler, `Store` and `Marks`. `client` gives the connection, or raises `Unavailable`."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._is_made = False

    async def _make_stream(self) -> None:
        """Create the stream of marks, or bring it to this release's settings."""
        answer = await self._ask(f"$JS.API.STREAM.CREATE.{SCHEDULES}", msgspec.json.encode(_STREAM))
        if answer.error is not None and answer.error.err_code == _NAME_IN_USE:
            answer = await self._ask(f"$JS.API.STREAM.UPDATE.{SCHEDULES}", msgspec.json.encode(_STREAM))
        if answer.error is not None:
            raise Unavailable(f"the broker refuses the stream {SCHEDULES}: {answer.error.description}")
        self._is_made = True

    async def put(self, call: TickCall) -> None:
        if await self._last(OUTCOMES, outcome_subject(call.key, call.id)) is not None:
            return
        headers = {"Nats-Msg-Id": call.id, **_LOOK_TWICE}
        answer = await self._ask(call_subject(call.key, call.id), message_of(call, time.time_ns()), headers)
        if answer.error is not None and "per subject" not in answer.error.description:
            raise Unavailable(f"the broker does not take the call of a schedule: {answer.error.description}")
        await self._client().publish(bell_subject(call.key))

    async def read(self, plan: Plan) -> Marked:
        if not self._is_made:
            await self._make_stream()
        message = await self._last(SCHEDULES, _subject(plan))
        if message is None:
            return Marked(None, 0)
        try:
            mark = msgspec.json.decode(message.data, type=Mark)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            mark = None  # foreign: replaced by ours
        return Marked(mark, int((message.headers or {}).get("Nats-Sequence", "0")))

    async def write(self, plan: Plan, mark: Mark, revision: int) -> int:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        answer = await self._ask(_subject(plan), msgspec.json.encode(mark), headers)
        if answer.error is None:
            return answer.seq
        if answer.error.err_code in _WRONG_REVISION:
            return 0
        raise Unavailable(f"the broker does not take the mark of a schedule: {answer.error.description}")

    async def forget(self, plan: Plan) -> None:
        await self._ask(f"$JS.API.STREAM.PURGE.{SCHEDULES}", msgspec.json.encode({"filter": _subject(plan)}))

    async def _last(self, stream: str, subject: str) -> Any:
        """The message of a subject, or None."""
        message = await self._request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", None)
        status = (message.headers or {}).get("Status", "")
        if status == "404":
            return None
        if status:
            raise Unavailable(f"the broker cannot be read ({stream}): status {status}")
        return message

    async def _ask(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> _Answer:
        message = await self._request(subject, payload, headers)
        try:
            return msgspec.json.decode(message.data, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Unavailable(f"the broker answers what is no JetStream ({subject})") from None

    async def _request(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> Any:
        async with _translated(subject):
            return await self._client().request(subject, payload, timeout=_TIMEOUT, headers=headers)


@asynccontextmanager
async def _translated(subject: str) -> AsyncIterator[None]:
    from nats.errors import Error

    try:
        yield
    except (Error, TimeoutError, OSError) as error:
        raise Unavailable(f"the broker does not answer ({subject}): {error or 'timeout'}") from error


def message_of(call: TickCall, at: int) -> bytes:
    """The call as it is stored: a POST, as the cron connector makes it. `at` is the time of acceptance (Unix, ns)."""
    lines = [
        f"POST /function/{call.key}{call.path} HTTP/1.1",
        "Host: stoker",
        f"Content-Length: {len(call.body)}",
        f"X-Call-Id: {call.id}",
        *(f"{name}: {value}" for name, value in call.headers),
    ]
    head = "\r\n".join([*lines, "", ""]).encode()
    return encode(StoredCall(VERSION, call.id, str(call.key), at), head, call.body)


def _subject(plan: Plan) -> str:
    return f"stoker.schedule.{plan.key.namespace}.{plan.key.name}.{plan.digest}"
