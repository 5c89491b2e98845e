"""Whose an owner's name is: the account of a forge, by its number, that pushed under it first.

A login can be given up and taken by somebody else, and two forges know nothing of each other's. Functions, hosts and
secrets go by the name, so the name is one account's until the operator gives it free. Our own remote is not asked: who
pushes there has the platform's password.

| stream | subject | one message is |
|---|---|---|
| `stoker-owners` | `stoker.owner.HASH` of the name in lower case | whose it is; number 0: nobody's |
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from stoker_builder.pipeline.app import answered
from stoker_builder.pipeline.store import RunStore
from stoker_sdk.broker.lookup import page_of
from stoker_sdk.broker.requests import ensure
from stoker_sdk.errors import Conflict, NotFound
from stoker_sdk.runs import OwnerName, account_of

_STREAM: Final = "stoker-owners"
_SUBJECT: Final = "stoker.owner"
_STREAMS: Final[tuple[dict[str, Any], ...]] = (
    {"name": _STREAM, "subjects": [f"{_SUBJECT}.*"], "max_msgs_per_subject": 1},
)
_PAGE: Final = 500


class Owners:
    """Every method raises `Unavailable` when the broker does not answer."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._names: dict[str, OwnerName] | None = None
        self._taking = asyncio.Lock()

    def routes(self) -> Sequence[web.RouteDef]:
        return (
            web.get("/system/owners", self._list),
            web.delete("/system/owners/{owner}", self._release),
        )

    async def take(self, forge: str, owner: str, number: int) -> str:
        """The name is this account's from now on; gives the account. Raises `Conflict` when it is another's."""
        async with self._taking:
            known = await self._known(owner)
            if known is None:
                known = OwnerName(owner.lower(), forge, number)
                await self._note(known)
        if known.account != (account := account_of(forge, number)):
            raise Conflict(
                f"the name {owner} belongs to another account on this platform ({known.account}; this is {account}): "
                f"its operator can give it free (`stoker owners release {owner}`)"
            )
        return account

    async def is_anothers(self, forge: str, owner: str, number: int) -> bool:
        """Whether the name is taken by an account other than this one."""
        known = await self._known(owner)
        return known is not None and known.account != account_of(forge, number)

    async def account(self, owner: str) -> str:
        """Whose the name is; empty for nobody's."""
        known = await self._known(owner)
        return known.account if known is not None else ""

    async def _known(self, owner: str) -> OwnerName | None:
        known = (await self._open()).get(owner.lower())
        return known if known is not None and known.id else None

    async def _note(self, name: OwnerName) -> None:
        """On disk when it returns."""
        names = await self._open()
        hashed = hashlib.sha256(name.owner.encode()).hexdigest()[:40]
        await self._store.publish(f"{_SUBJECT}.{hashed}", msgspec.json.encode(name))
        names[name.owner] = name

    async def _open(self) -> dict[str, OwnerName]:
        if self._names is None:
            await ensure(self._store.client, _STREAMS)
            names: dict[str, OwnerName] = {}
            sequence = 1
            while page := await page_of(self._store.client, _STREAM, f"{_SUBJECT}.*", sequence, _PAGE):
                found = [msgspec.json.decode(message.data, type=OwnerName) for message in page]
                names |= {each.owner: each for each in found}
                sequence = page[-1].sequence + 1
            if self._names is None:  # nobody was quicker
                self._names = names
        return self._names

    async def _list(self, request: web.Request) -> web.Response:
        names = (await self._open()).values()
        return answered(sorted((each for each in names if each.id), key=lambda each: each.owner))

    async def _release(self, request: web.Request) -> web.Response:
        owner = request.match_info["owner"]
        async with self._taking:
            known = await self._known(owner)
            if known is None:
                raise NotFound(f"the name {owner[:80]!r} is nobody's: `stoker owners list` shows those that are taken")
            await self._note(OwnerName(known.owner, "", 0))
        return answered(known)
