"""GitLab's REST API, version 4, by urllib3 in threads, with one token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import urllib3

from stoker_builder.pipeline.forge import NotNow
from stoker_builder.pipeline.gitlab.connection import Connection
from stoker_sdk.errors import StokerError, Unavailable

_SECONDS: Final = 15.0
_PAUSE: Final = 60.0
_LONGEST_PAUSE: Final = 3600.0


class Refused(StokerError):
    """GitLab says no, and will do so again. `gitlab_status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.gitlab_status = status


class GitLabApi:
    """`connection` gives the one in force, or None. Methods raise `Unavailable`, `NotNow` and `Refused`."""

    def __init__(self, connection: Callable[[], Connection | None]) -> None:
        self._connection = connection
        self._pool: urllib3.PoolManager | None = None

    async def project(self, id: str, verb: str, path: str, *, fields: dict[str, str] | None = None) -> Any:
        """A request of `/projects/ID` + `path`."""
        connection = self._connection()
        if connection is None:
            raise Unavailable("GitLab is not connected: start `stoker serve` with --gitlab-token-file")
        url = f"{connection.url}/api/v4/projects/{int(id)}{path}"
        return await asyncio.to_thread(self._ask, connection.token, verb, url, fields)

    def _ask(self, token: str, verb: str, url: str, fields: dict[str, str] | None) -> Any:
        if self._pool is None:
            self._pool = urllib3.PoolManager(retries=False, timeout=_SECONDS)
        body = msgspec.json.encode(fields) if fields is not None else None
        headers = {"PRIVATE-TOKEN": token, "Content-Type": "application/json", "User-Agent": "stoker"}
        try:
            answer = self._pool.request(verb, url, body=body, headers=headers, redirect=False)
            if answer.status < 300:
                return msgspec.json.decode(answer.data)
        except (urllib3.exceptions.HTTPError, msgspec.MsgspecError) as error:
            raise Unavailable(f"GitLab does not answer ({type(error).__name__})") from None
        text = f"GitLab answers {answer.status} to {verb} {url.partition('/api/v4')[2]}"
        if answer.status == 429:
            raise NotNow(text, _pause(answer.headers.get("Retry-After", "")))
        if answer.status >= 500 or answer.status == 408:
            raise Unavailable(text)
        raise Refused(text, answer.status)


def _pause(retry_after: str) -> float:
    return min(max(float(retry_after), 1.0), _LONGEST_PAUSE) if retry_after.isdigit() else _PAUSE
