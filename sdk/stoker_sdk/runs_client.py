"""The git pipeline's API of one gateway: runs, their logs, and the repositories of the platform's own remote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import quote

import msgspec

from stoker_sdk.errors import Unavailable
from stoker_sdk.http_client import Answer, HttpClient, raise_for_status
from stoker_sdk.runs import OwnerName, RemovedRepository, RepositoryName, Run, RunLine, SealKey

T = TypeVar("T")


class RunsClient:
    """Methods raise `StokerError`s, `NotFound` for a run that is not remembered."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def list_runs(
        self, *, owner: str = "", repository: str = "", state: str = "", before: int = 0, limit: int = 50
    ) -> list[Run]:
        """The newest first; the next page is `before` the last one's id."""
        query = {"owner": owner, "repository": repository, "state": state, "limit": str(limit)}
        query |= {"before": str(before)} if before else {}
        return self._decode(self._http.call("GET", "/system/runs", query=query), list[Run])

    def show(self, id: int) -> Run:
        return self._decode(self._http.call("GET", f"/system/runs/{id}"), Run)

    def log(self, id: int, *, follow: bool = False) -> Iterator[RunLine]:
        """The lines; with `follow` until the run has ended, as they come."""
        query = {"follow": "true" if follow else ""}
        with self._http.stream("GET", f"/system/runs/{id}/log", query=query, timeout=None) as response:
            raise_for_status(response, self._http.gateway)
            for line in self._http.lines(response):
                yield self._parse(line, RunLine)

    def retry(self, id: int) -> Run:
        """The new run. Raises `Conflict` while this one is open."""
        return self._decode(self._http.call("POST", f"/system/runs/{id}/retry"), Run)

    def cancel(self, id: int) -> Run:
        """Raises `Conflict` when it has ended."""
        return self._decode(self._http.call("DELETE", f"/system/runs/{id}"), Run)

    def repositories(self) -> list[RepositoryName]:
        return self._decode(self._http.call("GET", "/system/repositories"), list[RepositoryName])

    def remove_repository(self, owner: str, name: str) -> int:
        """Delete it; its functions are removed by the run whose id this is."""
        answer = self._http.call("DELETE", f"/system/repositories/{owner}/{name}")
        return self._decode(answer, RemovedRepository).run

    def owners(self) -> list[OwnerName]:
        """Whose the names of owners are."""
        return self._decode(self._http.call("GET", "/system/owners"), list[OwnerName])

    def release_owner(self, owner: str) -> OwnerName:
        """Whoever pushes next has the name; gives whose it was. Raises `NotFound` for a name that is nobody's."""
        return self._decode(self._http.call("DELETE", f"/system/owners/{quote(owner, safe='')}"), OwnerName)

    def seal_key(self) -> bytes:
        """The public key for secrets that may stand in a repository."""
        return self._decode(self._http.call("GET", "/system/seal-key"), SealKey).public_key

    def _decode(self, answer: Answer, kind: type[T]) -> T:
        return self._parse(answer.body, kind)

    def _parse(self, text: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            gateway = self._http.gateway
            raise Unavailable(f"{gateway} answered what is not this API: is it a Stoker gateway?") from None
