"""What has to outlive us: which deliveries were carried out, and which repositories are connected.

| stream | subject | one message is |
|---|---|---|
| `stoker-github` | `stoker.github.repository.ID` | a repository and the commit whose run was stored last |
| `stoker-github-deliveries` | `stoker.github.delivery.GUID.BODY` | nothing: both are hashes of what came |
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from stoker_builder.pipeline.store import RunStore
from stoker_sdk.broker.lookup import all_of, page_of
from stoker_sdk.broker.requests import SECOND, ensure

_REPOSITORIES: Final = "stoker-github"
_DELIVERIES: Final = "stoker-github-deliveries"
_KEPT: Final = 14 * 86400 * SECOND
"""GitHub itself delivers again for a few days; what is older and replayed finds that its commit is not the head."""
_STREAMS: Final = (
    {"name": _REPOSITORIES, "subjects": ["stoker.github.repository.*"], "max_msgs_per_subject": 1},
    {"name": _DELIVERIES, "subjects": ["stoker.github.delivery.*.*"], "max_age": _KEPT, "max_msgs": 200_000},
)
_PAGE: Final = 500

UNKNOWN: Final = "?"
"""The commit of a repository that was connected, and not pushed to since: what is there is not to be deployed."""


class Connected(msgspec.Struct, frozen=True, omit_defaults=True):
    """One repository. `branch` is its default one, empty if not known yet; `sha` is that of `UNKNOWN` or a commit,
    or empty: whatever the head is, is new.
    """

    id: int
    owner: str
    name: str
    branch: str = ""
    sha: str = UNKNOWN
    gone: bool = False

    @property
    def names(self) -> tuple[str, str]:
        """To compare."""
        return self.owner.lower(), self.name.lower()


class GitHubStore:
    """Every method raises `Unavailable` when the broker does not answer."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._repositories: dict[int, Connected] | None = None

    async def was_delivered(self, guid: str, event: str, body: bytes) -> bool:
        """Whether a delivery of this id, or with exactly this body, was carried out."""
        await self._open()
        filters = [f"stoker.github.delivery.{_hash(guid.encode())}.*", f"stoker.github.delivery.*.{_body(event, body)}"]
        return bool(await all_of(self._store.client, _DELIVERIES, filters))

    async def knows(self, guid: str) -> bool:
        """Whether a delivery of this id was carried out."""
        await self._open()
        return bool(await all_of(self._store.client, _DELIVERIES, [f"stoker.github.delivery.{_hash(guid.encode())}.*"]))

    async def note_delivery(self, guid: str, event: str, body: bytes) -> None:
        await self._store.publish(f"stoker.github.delivery.{_hash(guid.encode())}.{_body(event, body)}", b"{}")

    async def repositories(self) -> list[Connected]:
        return [each for each in (await self._open()).values() if not each.gone]

    async def by_id(self, id: int) -> Connected | None:
        """Also one that is gone."""
        return (await self._open()).get(id)

    async def note(self, repository: Connected) -> None:
        """On disk when it returns."""
        known = await self._open()
        if known.get(repository.id) != repository:
            await self._store.publish(f"stoker.github.repository.{repository.id}", msgspec.json.encode(repository))
            known[repository.id] = repository

    async def _open(self) -> dict[int, Connected]:
        if self._repositories is None:
            await ensure(self._store.client, _STREAMS)
            self._repositories = {each.id: each for each in await self._stored()}
        return self._repositories

    async def _stored(self) -> list[Connected]:
        found: list[Connected] = []
        sequence = 1
        while page := await page_of(self._store.client, _REPOSITORIES, "stoker.github.repository.*", sequence, _PAGE):
            found += [msgspec.json.decode(message.data, type=Connected) for message in page]
            sequence = page[-1].sequence + 1
        return found


def _body(event: str, body: bytes) -> str:
    return _hash(event.encode("utf-8", "surrogateescape") + b"\0" + body)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:40]
