"""Reading from streams without a consumer: one message by subject, or a page of them by filter ("direct get")."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stoker_sdk.errors import Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

_SECONDS: Final = 5.0
_NOTHING: Final = "404"
_MOST_SUBJECTS: Final = 500
"""Of one request; a server refuses more than 1,024."""


@dataclass(frozen=True)
class Found:
    """One stored message. `at` is when it was stored, RFC 3339."""

    subject: str
    sequence: int
    at: str
    headers: dict[str, str]
    data: bytes


async def last_of(client: Client, stream: str, subject: str) -> Found | None:
    """The newest message of exactly this subject. Raises `Unavailable`."""
    return await _first(client, stream, {"last_by_subj": subject})


async def first_of(client: Client, stream: str, filter: str, sequence: int = 1) -> Found | None:
    """The first message of a filter, at this sequence or later. Raises `Unavailable`."""
    return await _first(client, stream, {"seq": sequence, "next_by_subj": filter})


async def any_of(client: Client, stream: str, filter: str) -> Found | None:
    """The newest of each subject that the filter covers, the first of them. Raises `Unavailable`."""
    found = await _gather(client, stream, {"multi_last": [filter]})
    return found[0] if found else None


async def all_of(client: Client, stream: str, subjects: list[str]) -> list[Found]:
    """The newest of each of these subjects that has a message. Raises `Unavailable`."""
    found: list[Found] = []
    for start in range(0, len(subjects), _MOST_SUBJECTS):
        found += await _gather(client, stream, {"multi_last": subjects[start : start + _MOST_SUBJECTS]})
    return found


async def subjects_of(client: Client, stream: str, subjects: list[str]) -> set[str]:
    """Those that have a message. Raises `Unavailable`."""
    return {found.subject for found in await all_of(client, stream, subjects)}


async def at_sequence(client: Client, stream: str, sequence: int) -> Found | None:
    """The message of this sequence, if it is still there. Raises `Unavailable`."""
    return await _first(client, stream, {"seq": sequence})


async def page_of(
    client: Client, stream: str, filter: str, sequence: int, most: int, most_bytes: int = 4 * 1024 * 1024
) -> list[Found]:
    """Messages of the filter from this sequence on, at most so many, and so many bytes of them."""
    request = {"seq": sequence, "next_by_subj": filter, "batch": most, "max_bytes": most_bytes}
    return await _gather(client, stream, request)


async def _first(client: Client, stream: str, request: dict[str, Any]) -> Found | None:
    from nats.errors import Error

    try:
        subject = f"$JS.API.DIRECT.GET.{stream}"
        answer = await client.request(subject, msgspec.json.encode(request), timeout=_SECONDS)
    except (Error, TimeoutError) as error:
        raise Unavailable(f"the broker does not answer: {error or 'timeout'}") from error
    return _found(answer)


async def _gather(client: Client, stream: str, request: dict[str, Any]) -> list[Found]:
    from nats.errors import Error

    found: list[Found] = []
    try:
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        try:
            await client.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), reply=inbox)
            async with asyncio.timeout(_SECONDS):
                while (one := _found(await answers.next_msg(timeout=_SECONDS))) is not None:
                    found.append(one)
        finally:
            await answers.unsubscribe()
    except (Error, TimeoutError) as error:
        raise Unavailable(f"the broker does not answer: {error or 'timeout'}") from error
    return found


def _found(answer: Any) -> Found | None:
    """None when there is none, or no more (status 204). Raises `Unavailable` for other statuses."""
    headers = {str(name): value for name, value in (answer.headers or {}).items()}
    status = headers.get("Status", "")
    if status in (_NOTHING, "204"):
        return None
    if status:
        raise Unavailable(f"the broker answers {status}: its streams are not there yet, or are locked")
    return Found(
        headers["Nats-Subject"], int(headers["Nats-Sequence"]), headers["Nats-Time-Stamp"], headers, answer.data
    )
