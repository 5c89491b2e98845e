"""Claims and the answers of synchronous calls in JetStream.

A claim is replaced only by who knows its sequence number (compare and set), so of two requests with one key the broker
takes one. Claims and answers leave by their own time to live; a full stream refuses new claims rather than forget old.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stoker_gateway.queue import keys
from stoker_gateway.queue.keys import OPEN, Claim, key_token
from stoker_gateway.queue.subjects import (
    ANSWERS,
    KEYS,
    OUTCOMES,
    kept_answer_subject,
    key_subject,
    outcome_subject,
)
from stoker_sdk.broker.lookup import Found, last_of
from stoker_sdk.errors import Unavailable
from stoker_sdk.names import FunctionKey

if TYPE_CHECKING:
    from nats.aio.client import Client

_SECONDS: Final = 5.0
_TRY_SECONDS: Final = 2.0
_TRIES: Final = 5
_LONGER: Final = 60
_WRONG_REVISION: Final = (10071, 10164)


class _Error(msgspec.Struct, frozen=True):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct, frozen=True):
    error: _Error | None = None
    seq: int = 0


@dataclass(frozen=True)
class Tied:
    """A key's claim where it lies; `mine` if it is the one that was to be stored."""

    subject: str
    claim: Claim
    sequence: int
    mine: bool


class KeyStore:
    """The keys of one function. `window` is in seconds. Methods raise `Unavailable`."""

    def __init__(self, client: Client, function: FunctionKey, window: float) -> None:
        self._client = client
        self._function = function
        self._window = window

    async def claim(self, key: bytes, claim: Claim, *, replaces: int = 0) -> Tied:
        """Store the claim if there is none, or if the one there has the sequence `replaces`; else find that one."""
        subject = key_subject(self._function, key_token(key))
        for _ in range(_TRIES):
            sequence = await self._put(subject, claim, replaces)
            if sequence:
                return Tied(subject, claim, sequence, True)
            found = await self._last(KEYS, subject)
            if found is None:  # it has just been released, or its time is up
                replaces = 0
                continue
            try:
                there = keys.decode(found.data)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                replaces = found.sequence  # foreign: replaced by ours
                continue
            if there.v != keys.VERSION:
                raise Unavailable(f"the key was stored by another release (version {there.v}): update this one")
            return Tied(subject, there, found.sequence, there.id == claim.id)
        raise Unavailable("the key changes all the time: try again later")

    async def settle(self, tied: Tied, state: str) -> Tied:
        """Say what the claim has come to; not if somebody else has replaced it. Returns where it lies now."""
        claim = msgspec.structs.replace(tied.claim, state=state)
        sequence = await self._put(tied.subject, claim, tied.sequence)
        return replace(tied, claim=claim, sequence=sequence) if sequence else tied

    async def release(self, tied: Tied) -> None:
        """The key is free again."""
        request = msgspec.json.encode({"seq": tied.sequence, "no_erase": True})
        await self._ask(f"$JS.API.STREAM.MSG.DELETE.{KEYS}", request)

    async def has_call(self, claim: Claim) -> bool:
        """Whether the async call was stored for certain: it is said, or the call has ended."""
        if claim.state != OPEN:
            return True
        return await self._last(OUTCOMES, outcome_subject(self._function, claim.id)) is not None

    async def put_answer(self, tied: Tied, payload: bytes) -> None:
        """Keep the answer for as long as its key, and a little longer."""
        headers = {"Nats-Msg-Id": f"answer-{tied.claim.id}", "Nats-TTL": f"{math.ceil(self._window) + _LONGER}s"}
        answer = await self._ask(kept_answer_subject(self._function, tied.claim.id), payload, headers)
        if answer.error is not None:
            raise Unavailable(f"the broker refuses the answer: {answer.error.description}")

    async def answer(self, claim: Claim) -> bytes | None:
        found = await self._last(ANSWERS, kept_answer_subject(self._function, claim.id))
        return found.data if found else None

    async def _put(self, subject: str, claim: Claim, revision: int) -> int:
        """The sequence; 0 if another claim is there."""
        ends = claim.at / 1e9 + self._window
        if claim.state == OPEN:
            ends = max(ends, claim.until)  # a call that is longer than the window still runs once at a time
        headers = {
            "Nats-Msg-Id": f"key-{claim.id}-{claim.state}",
            "Nats-Expected-Last-Subject-Sequence": str(revision),
            "Nats-TTL": f"{max(1, math.ceil(ends - time.time()))}s",
        }
        answer = await self._ask(subject, keys.encode(claim), headers)
        if answer.error is None:
            return answer.seq
        if answer.error.err_code in _WRONG_REVISION:
            return 0
        raise Unavailable(f"the broker refuses the key: {answer.error.description}")

    async def _last(self, stream: str, subject: str) -> Found | None:
        try:
            return await last_of(self._client, stream, subject)
        except OSError as error:
            raise Unavailable(f"the broker does not answer: {error}; try again later") from error

    async def _ask(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> _Answer:
        message = await self._request(subject, payload, headers)
        try:
            return msgspec.json.decode(message.data, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Unavailable(f"the broker answers what is no JetStream ({subject})") from None

    async def _request(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> Any:
        """Asked again for a while: all that is asked here may be asked twice."""
        from nats.errors import Error

        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                return await self._client.request(subject, payload, timeout=_TRY_SECONDS, headers=headers)
            except (Error, TimeoutError, OSError) as error:
                if time.monotonic() + _TRY_SECONDS > deadline:
                    raise Unavailable(f"the broker does not answer: {error or 'timeout'}; try again later") from error
                await asyncio.sleep(0.1)
