"""Requests of the JetStream API: streams are made, measured and emptied, consumers looked at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stoker_sdk.errors import Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

SECOND: Final = 10**9
"""JetStream's times are in nanoseconds."""
COMMON: Final = {"storage": "file", "allow_direct": True, "num_replicas": 1, "duplicate_window": 120 * SECOND}
_NAME_IN_USE: Final = 10058


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Reply(msgspec.Struct, frozen=True):
    error: _Error | None = None


class State(msgspec.Struct, frozen=True):
    messages: int = 0
    bytes: int = 0
    last_seq: int = 0
    subjects: dict[str, int] = {}


class _AckFloor(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _ConsumerInfo(msgspec.Struct, frozen=True):
    ack_floor: _AckFloor = _AckFloor()
    error: _Error | None = None


class Info(msgspec.Struct, frozen=True):
    state: State = State()
    total: int = 0
    error: _Error | None = None


async def ensure(client: Client, streams: Iterable[dict[str, Any]]) -> None:
    """Create what is missing, and bring the rest to these settings. Raises `Unavailable` with the reason."""
    for stream in streams:
        settings = COMMON | {"retention": "limits"} | stream
        error = await ask(client, f"STREAM.CREATE.{stream['name']}", settings)
        if error is not None and error.err_code == _NAME_IN_USE:
            error = await ask(client, f"STREAM.UPDATE.{stream['name']}", settings)
        if error is not None:
            raise Unavailable(f"the broker refuses the stream {stream['name']}: {error.description}")


async def last_sequence(client: Client, stream: str) -> int:
    """The sequence of the newest message that a stream ever had. Raises `Unavailable`."""
    info = msgspec.json.decode(await ask_whole(client, f"STREAM.INFO.{stream}", {}), type=Info)
    if info.error is not None:
        raise Unavailable(f"the stream {stream} cannot be seen: {info.error.description}")
    return info.state.last_seq


async def subjects_under(client: Client, stream: str, filter: str) -> list[str]:
    """Every subject of the filter that has a message, without their messages. Raises `Unavailable`."""
    found: list[str] = []
    while True:
        request = {"subjects_filter": filter, "offset": len(found)}
        info = msgspec.json.decode(await ask_whole(client, f"STREAM.INFO.{stream}", request), type=Info)
        if info.error is not None:
            raise Unavailable(f"the stream {stream} cannot be seen: {info.error.description}")
        found += info.state.subjects
        if not info.state.subjects or len(found) >= info.total:
            return found


async def acknowledged_up_to(client: Client, stream: str, consumer: str) -> int:
    """The sequence up to which a consumer has nothing left that is not acknowledged. Raises `Unavailable`."""
    answer = await ask_whole(client, f"CONSUMER.INFO.{stream}.{consumer}", {})
    info = msgspec.json.decode(answer, type=_ConsumerInfo)
    if info.error is not None:
        raise Unavailable(f"the consumer {consumer} cannot be seen: {info.error.description}")
    return info.ack_floor.stream_seq


async def ask(client: Client, what: str, body: dict[str, Any]) -> _Error | None:
    """One request of the JetStream API; the error that it answers, or None. Raises `Unavailable` without an answer."""
    return msgspec.json.decode(await ask_whole(client, what, body), type=_Reply).error


async def ask_whole(client: Client, what: str, body: dict[str, Any]) -> bytes:
    """The whole answer to such a request. Raises `Unavailable`."""
    from nats.errors import Error

    try:
        answer = await client.request(f"$JS.API.{what}", msgspec.json.encode(body), timeout=5)
    except (Error, TimeoutError) as error:
        raise Unavailable(f"the broker does not answer ({what}): {error or 'timeout'}") from error
    return answer.data
