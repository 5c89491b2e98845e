"""Going through a stream for a list, which is to be quick however long the stream is and however few it is to find."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

from stoker_gateway.queue.subjects import of_functions
from stoker_sdk.broker.lookup import Found, all_of, page_of
from stoker_sdk.broker.requests import subjects_under

if TYPE_CHECKING:
    from nats.aio.client import Client

_SOME: Final = 500

Subjects = Callable[[], Awaitable[list[str]]]


async def pages(
    client: Client, stream: str, filter: str, sequence: int, size: int, few: Subjects | None = None, look: int = _SOME
) -> AsyncIterator[list[Found]]:
    """Messages of the filter from this sequence on, in order, until the caller has enough; `size` of them at a time.

    `few` gives the subjects that matter, when most do not. It is asked when `look` messages have been gone through,
    since the wanted ones may be most after all. Raises `Unavailable`.
    """
    seen = 0
    while few is None or seen < look:
        found = await page_of(client, stream, filter, sequence, size)
        if not found:
            return
        yield found
        seen += len(found)
        sequence = found[-1].sequence + 1
    rest = [one for one in await all_of(client, stream, await few()) if one.sequence >= sequence]
    yield sorted(rest, key=lambda one: one.sequence)


def marked_by(client: Client, stream: str, marks: str, kind: str, namespace: str, function: str) -> Subjects:
    """Those whose call has a message in another stream too, where its subjects begin with `stoker.MARKS`."""

    async def subjects() -> list[str]:
        found = await subjects_under(client, stream, of_functions(marks, namespace, function))
        return [subject.replace(f"stoker.{marks}.", f"stoker.{kind}.", 1) for subject in found]

    return subjects
