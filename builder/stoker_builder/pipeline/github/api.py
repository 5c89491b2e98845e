"""GitHub's REST API: each request by PyGithub in a thread, with a token for its repository alone, and honest errors.

PyGithub is imported at the first request. Its own retries and pauses are off: `Unavailable` says that a later try may
help, `NotNow` how long it has to wait, and everything else (`Refused`) that none will.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stoker_builder.pipeline.forge import NotNow
from stoker_builder.pipeline.github.connection import Connection
from stoker_sdk.errors import StokerError, Unavailable

if TYPE_CHECKING:
    from github import Github

_SECONDS: Final = 15
_TOKEN_LIFE: Final = 50 * 60.0
"""Seconds; an installation token lasts an hour."""
_LONGEST_PAUSE: Final = 3600.0
_PERMISSIONS: Final[dict[str, Mapping[str, str]]] = {
    "fetch": {"contents": "read"},
    "report": {"checks": "write", "statuses": "write", "pull_requests": "write", "contents": "read"},
}


class Refused(StokerError):
    """GitHub says no, and will do so again. `github_status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.github_status = status


@dataclass
class _Token:
    text: str
    client: Github
    until: float


class GitHubApi:
    """`connection` gives the one in force, or None. Methods raise `Unavailable`, `NotNow` and `Refused`."""

    def __init__(self, connection: Callable[[], Connection | None]) -> None:
        self._connection = connection
        self._used: Connection | None = None
        self._tokens: dict[tuple[str, str, str], _Token] = {}
        self._locks: dict[tuple[str, str, str], asyncio.Lock] = {}
        self._quiet_until: dict[str, float] = {}

    async def repository(
        self,
        owner: str,
        name: str,
        verb: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """A request of `/repos/OWNER/NAME` + `path`, with a token for this repository."""
        place = (owner.lower(), name.lower(), "report")
        async with self._locks.setdefault(place, asyncio.Lock()):
            url = f"/repos/{owner}/{name}{path}"
            try:
                token = await self._token(*place)
                return await self._ask(token.client, owner, verb, url, body, headers)
            except Refused as error:
                if error.github_status != 401:
                    raise
                self._tokens.pop(place, None)  # it was revoked: the next one may be good
                token = await self._token(*place)
                return await self._ask(token.client, owner, verb, url, body, headers)

    async def app(self, verb: str, path: str) -> Any:
        """A request as the App itself."""
        from github import Auth, Github

        connection = self._connected()
        auth = Auth.AppAuth(connection.app_id, connection.private_key)
        client = Github(auth=auth, base_url=connection.api_url, **_CLIENT)
        try:
            return await self._ask(client, "", verb, path, None, None)
        finally:
            client.close()

    async def authorization(self, owner: str, name: str) -> str:
        """The header with which git may read this repository, for an hour at most, and nothing else."""
        place = (owner.lower(), name.lower(), "fetch")
        async with self._locks.setdefault(place, asyncio.Lock()):
            token = (await self._token(*place)).text
        return "Basic " + base64.b64encode(f"x-access-token:{token}".encode()).decode()

    def secrets(self) -> list[str]:
        """What must stand in nothing that leaves us: tokens in use, and the webhook's secrets."""
        connection = self._used
        texts = [token.text for token in self._tokens.values()]
        if connection is not None:
            texts += [secret.decode(errors="replace") for secret in connection.secrets]
        return [text for text in texts if text]

    async def _token(self, owner: str, name: str, kind: str) -> _Token:
        connection = self._connected()
        known = self._tokens.get((owner, name, kind))
        if known is not None and known.until > time.monotonic():
            return known
        from github import Auth, Github

        text = connection.token or await self._installation_token(owner, name, kind)
        client = Github(auth=Auth.Token(text), base_url=connection.api_url, **_CLIENT)
        token = self._tokens[owner, name, kind] = _Token(text, client, time.monotonic() + _TOKEN_LIFE)
        return token

    async def _installation_token(self, owner: str, name: str, kind: str) -> str:
        """A new one, for this repository and this kind of work only."""
        from github import Auth, Github

        connection = self._connected()
        auth = Auth.AppAuth(connection.app_id, connection.private_key)
        client = Github(auth=auth, base_url=connection.api_url, **_CLIENT)
        try:
            found = await self._ask(client, owner, "GET", f"/repos/{owner}/{name}/installation", None, None)
            body = {"repositories": [name], "permissions": _PERMISSIONS[kind]}
            url = f"/app/installations/{int(found['id'])}/access_tokens"
            return str((await self._ask(client, owner, "POST", url, body, None))["token"])
        except Refused as error:
            if error.github_status != 422:
                raise
            wanted = ", ".join(f"{what}: {level}" for what, level in _PERMISSIONS[kind].items())
            raise Refused(f"the GitHub App lacks permissions there: give it {wanted}", 403) from None
        finally:
            client.close()

    async def _ask(
        self,
        client: Github,
        owner: str,
        verb: str,
        url: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> Any:
        """The decoded answer. `owner` is whose limit of requests it counts for; a token has one limit for all."""
        limit = owner.lower() if self._connected().is_app else ""
        if (pause := self._quiet_until.get(limit, 0.0) - time.monotonic()) > 0:
            raise NotNow(f"GitHub lets us ask again in {pause:.0f} seconds", pause)
        try:
            return await asyncio.to_thread(_request, client, verb, url, body, headers)
        except NotNow as error:
            self._quiet_until[limit] = time.monotonic() + error.seconds
            raise

    def _connected(self) -> Connection:
        connection = self._connection()
        if connection is None:
            raise Unavailable("GitHub is not connected: run `stoker github setup`")
        if connection is not self._used:
            self._used = connection
            self._tokens.clear()
        return connection


_CLIENT: Final[dict[str, Any]] = {
    "timeout": _SECONDS,
    "retry": None,
    "seconds_between_requests": 0,
    "seconds_between_writes": 0,
    "user_agent": "stoker",
}


logging.getLogger("github.Requester").setLevel(logging.WARNING)  # it tells of every redirection


def _request(
    client: Github, verb: str, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None
) -> Any:
    from github import GithubException

    given = dict(body) if body is not None else None
    try:
        _, data = client.requester.requestJsonAndCheck(verb, url, headers=dict(headers or {}), input=given)
    except GithubException as error:
        raise _refusal(error, verb, url) from None
    except Exception as error:  # a connection that breaks, an answer that is no JSON, a private key that is none
        raise Unavailable(f"GitHub cannot be asked, or does not answer ({type(error).__name__})") from error
    return data


def _refusal(error: Any, verb: str, url: str) -> StokerError:
    """GitHub's answer as an error of ours. 429, and 403 with the marks of a limit, say when to come back."""
    status = int(error.status)
    headers = {str(key).lower(): str(value) for key, value in (error.headers or {}).items()}
    said = error.data.get("message", "") if isinstance(error.data, dict) else ""
    text = f"GitHub answers {status} to {verb} {url}: {str(said)[:200] or 'no reason given'}"
    if status == 429 or (status == 403 and _is_limit(headers, str(said))):
        return NotNow(text, pause_of(headers, time.time()))
    if status >= 500 or status == 408:
        return Unavailable(text)
    return Refused(text, status)


def _is_limit(headers: Mapping[str, str], said: str) -> bool:
    return "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0" or "rate limit" in said.lower()


def pause_of(headers: Mapping[str, str], now: float) -> float:
    """Seconds to wait, by `Retry-After`, else by `X-RateLimit-Reset` (Unix seconds), else a minute."""
    try:
        if "retry-after" in headers:
            seconds = float(headers["retry-after"])
        elif headers.get("x-ratelimit-remaining") == "0":
            seconds = float(headers["x-ratelimit-reset"]) - now
        else:
            seconds = 60.0
    except (KeyError, ValueError):
        seconds = 60.0
    return min(max(seconds, 1.0), _LONGEST_PAUSE)
