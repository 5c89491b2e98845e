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
from stoker_sdk.broker.requests import SECOND as _SECOND
from stoker_sdk.broker.requests import Info, ask, ask_whole, ensure

if TYPE_CHECKING:
    from nats.aio.client import Client

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


async def ensure_streams(client: Client) -> None:
    """Create what is missing, and bring the rest to this release's settings. Raises `Unavailable` with the reason."""
    await ensure(client, STREAMS)


async def trim(client: Client) -> None:
    """Shorten what is kept of ended calls to its size. Raises `Unavailable`."""
    for name in (OUTCOMES, ATTEMPTS, DEAD, RESULTS, ANSWERS):
        answer = await ask_whole(client, f"STREAM.INFO.{name}", {})
        state = msgspec.json.decode(answer, type=Info).state
        if state.bytes > MAX_KEPT:
            keep = int(state.messages * 0.9 * MAX_KEPT / state.bytes)
            await ask(client, f"STREAM.PURGE.{name}", {"keep": max(1, keep)})
