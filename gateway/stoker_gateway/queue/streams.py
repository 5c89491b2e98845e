"""The streams: what each holds and how long. The one place that creates and updates them.

| stream | subject | one message is |
|---|---|---|
| `stoker-calls` | `stoker.call.NAMESPACE.NAME.ID` | a call without an outcome, or with one for a moment (`sweep.py`) |
| `stoker-outcomes` | `stoker.outcome.NAMESPACE.NAME.ID` | how a call ended, once for each call |
| `stoker-attempts` | `stoker.attempt.NAMESPACE.NAME.ID` | the failed attempts of a call so far; the newest replaces |
| the same | `stoker.delivery.NAMESPACE.NAME.ID` | what became of its callback so far; the newest replaces |
| `stoker-dead` | `stoker.dead.NAMESPACE.NAME.ID` | the request of a call that ended dead, for a replay |
| `stoker-callbacks` | `stoker.callback.NAMESPACE.NAME.ID` | an answer that is still to be posted (work queue) |
| `stoker-results` | `stoker.result.NAMESPACE.NAME.ID` | the answer of an ended call, for as long as was asked |
| `stoker-keys` | `stoker.key.NAMESPACE.NAME.HASH` | the call that an `Idempotency-Key` is tied to |
| `stoker-answers` | `stoker.answer.NAMESPACE.NAME.ID` | the answer of a synchronous call with such a key |
| `OBJ_stoker-bodies` | `$O.stoker-bodies.…` | a piece of a large body, or what they are together (`bodies.py`) |

"Discard new per subject" is what makes an outcome final: the server refuses a second one. It goes with "discard new"
alone, by which a full stream refuses everything; so `trim` bounds the bytes, oldest first, and the server only the age.
Keys are the exception: to forget one could run a call twice, so a full stream of them refuses new ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from stoker_gateway.queue.subjects import (
    ANSWERS,
    ATTEMPTS,
    BODIES,
    BUCKET,
    CALLBACKS,
    CALLS,
    DEAD,
    KEYS,
    OUTCOMES,
    RESULTS,
)
from stoker_sdk.errors import Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

_SECOND: Final = 10**9
_DAY: Final = 86400 * _SECOND
MAX_KEPT: Final = 1024**3
"""Bytes of each stream that holds what is left of ended calls."""
_ONCE: Final = {"max_msgs_per_subject": 1, "discard": "new", "discard_new_per_subject": True}
_NEWEST: Final = {"max_msgs_per_subject": 1, "allow_msg_ttl": True}

STREAMS: Final[tuple[dict[str, Any], ...]] = (
    {"name": CALLS, "subjects": ["stoker.call.*.*.*"], "allow_atomic": True, **_ONCE},
    {"name": OUTCOMES, "subjects": ["stoker.outcome.*.*.*"], "max_age": 7 * _DAY, "allow_atomic": True, **_ONCE},
    {
        "name": ATTEMPTS,
        "subjects": ["stoker.attempt.*.*.*", "stoker.delivery.*.*.*"],
        "max_age": 7 * _DAY,
        "max_msgs_per_subject": 1,
    },
    {"name": DEAD, "subjects": ["stoker.dead.*.*.*"], "max_age": 7 * _DAY, **_ONCE},
    {"name": CALLBACKS, "subjects": ["stoker.callback.*.*.*"], "retention": "workqueue", **_ONCE},
    {"name": RESULTS, "subjects": ["stoker.result.*.*.*"], **_NEWEST},
    {"name": KEYS, "subjects": ["stoker.key.*.*.*"], "max_bytes": MAX_KEPT, "discard": "new", **_NEWEST},
    {"name": ANSWERS, "subjects": ["stoker.answer.*.*.*"], **_NEWEST},
    {
        "name": BODIES,
        "subjects": [f"$O.{BUCKET}.C.>", f"$O.{BUCKET}.M.>"],
        "discard": "new",
        "allow_rollup_hdrs": True,
    },
)
_COMMON: Final = {"storage": "file", "allow_direct": True, "num_replicas": 1, "duplicate_window": 120 * _SECOND}
_NAME_IN_USE: Final = 10058


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Reply(msgspec.Struct, frozen=True):
    error: _Error | None = None


class _State(msgspec.Struct, frozen=True):
    messages: int = 0
    bytes: int = 0
    last_seq: int = 0
    subjects: dict[str, int] = {}


class _AckFloor(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _ConsumerInfo(msgspec.Struct, frozen=True):
    ack_floor: _AckFloor = _AckFloor()
    error: _Error | None = None


class _Info(msgspec.Struct, frozen=True):
    state: _State = _State()
    total: int = 0
    error: _Error | None = None


async def ensure_streams(client: Client) -> None:
    """Create what is missing, and bring the rest to this release's settings. Raises `Unavailable` with the reason."""
    for stream in STREAMS:
        settings = _COMMON | {"retention": "limits"} | stream
        error = await ask(client, f"STREAM.CREATE.{stream['name']}", settings)
        if error is not None and error.err_code == _NAME_IN_USE:
            error = await ask(client, f"STREAM.UPDATE.{stream['name']}", settings)
        if error is not None:
            raise Unavailable(f"the broker refuses the stream {stream['name']}: {error.description}")


async def trim(client: Client) -> None:
    """Shorten what is kept of ended calls to its size. Raises `Unavailable`."""
    for name in (OUTCOMES, ATTEMPTS, DEAD, RESULTS, ANSWERS):
        answer = await ask_whole(client, f"STREAM.INFO.{name}", {})
        state = msgspec.json.decode(answer, type=_Info).state
        if state.bytes > MAX_KEPT:
            keep = int(state.messages * 0.9 * MAX_KEPT / state.bytes)
            await ask(client, f"STREAM.PURGE.{name}", {"keep": max(1, keep)})


async def last_sequence(client: Client, stream: str) -> int:
    """The sequence of the newest message that a stream ever had. Raises `Unavailable`."""
    info = msgspec.json.decode(await ask_whole(client, f"STREAM.INFO.{stream}", {}), type=_Info)
    if info.error is not None:
        raise Unavailable(f"the stream {stream} cannot be seen: {info.error.description}")
    return info.state.last_seq


async def subjects_under(client: Client, stream: str, filter: str) -> list[str]:
    """Every subject of the filter that has a message, without their messages. Raises `Unavailable`."""
    found: list[str] = []
    while True:
        request = {"subjects_filter": filter, "offset": len(found)}
        info = msgspec.json.decode(await ask_whole(client, f"STREAM.INFO.{stream}", request), type=_Info)
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
