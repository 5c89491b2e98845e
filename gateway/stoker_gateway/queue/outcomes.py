"""What is stored of a call's life: its failed attempts so far, and its outcome."""

from __future__ import annotations

from typing import Final

import msgspec

from stoker_sdk.messages import CallAttempt

DONE: Final = "done"
DEAD: Final = "dead"
CANCELLED: Final = "cancelled"
STATES: Final = (DONE, DEAD, CANCELLED)
"""How a call can end."""

STATE_HEADER: Final = "Stoker-State"
MAX_ANSWER: Final = 4096
"""Bytes of the answer that are kept of a call that failed."""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """How a call ended, once. Times are RFC 3339; `answer` holds the first bytes of a failed one's.

    `result_until` is for how long its whole answer is kept, empty if it is not.
    """

    id: str
    key: str
    state: str
    created_at: str
    ended_at: str
    started_at: str = ""
    status: int = 0
    reason: str = ""
    answer: str = ""
    attempts: list[CallAttempt] = []
    replay_of: str = ""
    result_until: str = ""


class Running(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says of a call that it runs now."""

    id: str
    key: str
    started_at: str


encode = msgspec.json.encode
decode_outcome = msgspec.json.Decoder(Outcome).decode
decode_attempts = msgspec.json.Decoder(list[CallAttempt]).decode
decode_running = msgspec.json.Decoder(list[Running]).decode
