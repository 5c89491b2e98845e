"""What a forge has to remember beyond our life: deliveries that were carried out, repositories that are connected.

| stream | subject | one message is |
|---|---|---|
| `stoker-FORGE` | `stoker.FORGE.repository.ID` | a repository and the commit whose run was stored last |
| `stoker-FORGE-deliveries` | `stoker.FORGE.delivery.GUID.BODY` | nothing: both are hashes of what came |
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from stoker_builder.pipeline.store import RunStore
from stoker_sdk.broker.lookup import all_of, page_of
from stoker_sdk.broker.requests import SECOND, ensure

_KEPT: Final = 14 * 86400 * SECOND
"""Forges themselves deliver again for a few days; what is older and replayed finds that its commit is not the head."""
_KEPT_DELIVERIES: Final = 200_000
_PAGE: Final = 500

UNKNOWN: Final = "?"
"""The commit of a repository that was connected, and not pushed to since: what is there is not to be deployed."""


class Connected(msgspec.Struct, frozen=True, omit_defaults=True):
    """One repository. `branch` is its default one, empty if not known yet; `sha` is that of `UNKNOWN` or a commit,
    or empty: whatever the head is, is new. `owner_id` is the number of the owner's account, 0 if it was never told.
    """

    id: int
    owner: str
    name: str
    branch: str = ""
    sha: str = UNKNOWN
    gone: bool = False
    owner_id: int = 0

    @property
    def names(self) -> tuple[str, str]:
        """To compare."""
        return self.owner.lower(), self.name.lower()


class ForgeMemory:
    """`forge` is its name. Every method raises `Unavailable` when the broker does not answer."""

    def __init__(self, store: RunStore, forge: str) -> None:
        self._store = store
        self._stream = f"stoker-{forge}"
        self._deliveries = f"stoker-{forge}-deliveries"
        self._subject = f"stoker.{forge}"
        self._repositories: dict[int, Connected] | None = None

    async def was_delivered(self, guid: str, event: str, body: bytes) -> bool:
        """Whether a delivery of this id, or with exactly this body, was carried out."""
        await self._open()
        subject = f"{self._subject}.delivery"
        filters = [f"{subject}.{_hash(guid.encode())}.*", f"{subject}.*.{_body(event, body)}"]
        return bool(await all_of(self._store.client, self._deliveries, filters))

    async def knows(self, guid: str) -> bool:
        """Whether a delivery of this id was carried out."""
        await self._open()
        filters = [f"{self._subject}.delivery.{_hash(guid.encode())}.*"]
        return bool(await all_of(self._store.client, self._deliveries, filters))

    async def note_delivery(self, guid: str, event: str, body: bytes) -> None:
        await self._store.publish(f"{self._subject}.delivery.{_hash(guid.encode())}.{_body(event, body)}", b"{}")

    async def repositories(self) -> list[Connected]:
        return [each for each in (await self._open()).values() if not each.gone]

    async def by_id(self, id: int) -> Connected | None:
        """Also one that is gone."""
        return (await self._open()).get(id)

    async def note(self, repository: Connected) -> None:
        """On disk when it returns."""
        known = await self._open()
        if known.get(repository.id) != repository:
            await self._store.publish(f"{self._subject}.repository.{repository.id}", msgspec.json.encode(repository))
            known[repository.id] = repository

    async def _open(self) -> dict[int, Connected]:
        if self._repositories is None:
            await ensure(self._store.client, self._streams())
            self._repositories = {each.id: each for each in await self._stored()}
        return self._repositories

    def _streams(self) -> tuple[dict[str, Any], ...]:
        repositories, deliveries = f"{self._subject}.repository.*", f"{self._subject}.delivery.*.*"
        limits = {"max_age": _KEPT, "max_msgs": _KEPT_DELIVERIES}
        return (
            {"name": self._stream, "subjects": [repositories], "max_msgs_per_subject": 1},
            {"name": self._deliveries, "subjects": [deliveries], **limits},
        )

    async def _stored(self) -> list[Connected]:
        found: list[Connected] = []
        sequence = 1
        subjects = f"{self._subject}.repository.*"
        while page := await page_of(self._store.client, self._stream, subjects, sequence, _PAGE):
            found += [msgspec.json.decode(message.data, type=Connected) for message in page]
            sequence = page[-1].sequence + 1
        return found


def _body(event: str, body: bytes) -> str:
    return _hash(event.encode("utf-8", "surrogateescape") + b"\0" + body)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:40]
