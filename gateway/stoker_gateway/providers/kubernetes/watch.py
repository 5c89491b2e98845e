"""One kind of objects of one namespace, kept in step: listed once, then watched, for as long as the platform runs.

What is lost with a connection is asked for again from the version that was seen last; only when the API has forgotten
that one is the list asked for anew. While the API is away, what was known stays.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from stoker_gateway.providers.kubernetes.api import Api
from stoker_gateway.providers.kubernetes.errors import Expired, error_of
from stoker_gateway.providers.kubernetes.objects import Deployment, Event, Function, List, Named, Pod, Status
from stoker_sdk.errors import StokerError

log = logging.getLogger("stoker.kubernetes")

T = TypeVar("T", bound=Deployment | Pod | Function)

_WATCH_SECONDS = 300
"""The API ends a watch after so long, by half as much more at random, so that not all come again at once."""
_SILENCE = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 15.0
_PAGE = "500"

_decode_event = msgspec.json.Decoder(Event).decode


class Watch(Generic[T]):
    """Tells of every object of `path` that matches `selector`: `seen` when it is there or changed, `gone` when not.

    `replaced` is told of a whole list, which stands for everything that was told before.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        selector: str,
        kind: type[T],
        *,
        seen: Callable[[T], None],
        gone: Callable[[T], None],
        replaced: Callable[[list[T]], None],
    ) -> None:
        self._api = api
        self._path = path
        self._selector = selector
        self._seen, self._gone, self._replaced = seen, gone, replaced
        self._what = f"{path.rpartition('/')[2]} of {path.split('/')[-2]!r}"
        self._decode = msgspec.json.Decoder(kind).decode
        self._list: Any = List[kind]  # type: ignore[valid-type]
        self._version = ""

    async def list(self) -> None:
        """Ask for all there are, and tell them. Raises `StokerError`."""
        query = {"labelSelector": self._selector, "limit": _PAGE}
        found: list[T] = []
        while True:
            page = await self._api.get(self._path, self._list, self._what, query)
            found += page.items
            more = page.metadata.continue_
            if not more:
                break
            query["continue"] = more
        self._version = page.metadata.resource_version
        self._replaced(found)

    async def run(self) -> None:
        """Watch, until it is cancelled."""
        wait = _FIRST_PAUSE
        while True:
            try:
                if not self._version:
                    await self.list()
                await self._watch()
                wait = _FIRST_PAUSE
            except Expired:
                self._version = ""
            except StokerError as error:
                log.warning("%s; what is known goes on", error)
            except TimeoutError:
                log.warning("%s: the watch was silent for %g s and is begun anew", self._what, _SILENCE)
            except Exception:
                log.exception("%s: the watch broke, and begins with a list", self._what)
                self._version = ""
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, _LONGEST_PAUSE)

    async def _watch(self) -> None:
        query = {
            "labelSelector": self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(_WATCH_SECONDS * random.uniform(1.0, 1.5))),
        }
        async with self._api.stream(self._path, self._what, query, _SILENCE) as lines:
            rest = b""
            async for chunk in lines.iter_any():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    self._take(line)

    def _take(self, line: bytes) -> None:
        event = _decode_event(line)
        if event.type == "ERROR":
            told = msgspec.json.decode(event.object, type=Status)
            raise error_of(told.code or 500, bytes(event.object), self._what)
        if event.type == "BOOKMARK":
            self._version = msgspec.json.decode(event.object, type=Named).metadata.resource_version
            return
        one = self._decode(event.object)
        self._version = one.metadata.resource_version
        if event.type == "DELETED":
            self._gone(one)
        else:
            self._seen(one)
