"""Signing in with GitHub: OAuth's web flow, with a state tied to the browser, and PKCE (RFC 7636).

The access token is used for two questions, who somebody is and whose members they are, and is kept nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
from aiohttp import ClientError, ClientResponseError, ClientSession, ClientTimeout, web

from stoker_gateway.pages.keys import GITHUB, SESSIONS
from stoker_gateway.pages.page import address_of
from stoker_gateway.pages.sessions import set_cookie
from stoker_gateway.pages.sign_in import next_page, signed_in
from stoker_sdk.basic_auth import same_text
from stoker_sdk.errors import Unavailable

log = logging.getLogger("stoker.pages")

T = TypeVar("T")

_COOKIE: Final = "stoker-github"
_FLOW_SECONDS: Final = 600
_SECONDS: Final = 10.0
_SCOPE: Final = "read:org"
_PAGES: Final = 5
"""Of a hundred memberships each."""
_FORBIDDEN: Final = 403
_MAX_ANSWER: Final = 1024 * 1024


class Flow(msgspec.Struct, frozen=True, tag=True):
    """What is remembered in the browser, sealed, while somebody is at GitHub."""

    state: str
    verifier: str
    target: str


class _Token(msgspec.Struct, frozen=True):
    access_token: str = ""
    error: str = ""


class _Account(msgspec.Struct, frozen=True):
    login: str
    id: int


class _Membership(msgspec.Struct, frozen=True):
    organization: _Account


@dataclass(frozen=True)
class GitHub:
    """The OAuth application, or the App. `api_url` is `https://api.github.com`, or `https://HOST/api/v3` of an own
    server.
    """

    client_id: str
    client_secret: str = field(repr=False)
    api_url: str

    @property
    def web_url(self) -> str:
        parts = urlsplit(self.api_url)
        if parts.netloc == "api.github.com":
            return "https://github.com"
        return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/api/v3')}"

    async def owners(self, code: str, verifier: str, redirect: str) -> tuple[str, dict[str, int]]:
        """Who came back with this code: the login; and it with the organisations', in lower case, with the accounts'
        numbers. Raises `Unavailable` and `HTTPForbidden`.
        """
        try:
            async with ClientSession(timeout=ClientTimeout(total=_SECONDS)) as client:
                token = await self._token(client, code, verifier, redirect)
                person = await self._get(client, token, "/user", _Account)
                organisations = await self._organisations(client, token)
        except (ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
            log.warning("GitHub at %s: %s", self.api_url, error or type(error).__name__)
            raise Unavailable("GitHub does not answer as it should: try again in a moment") from error
        accounts = [person, *sorted(organisations, key=lambda account: account.login)]
        return person.login, {account.login.lower(): account.id for account in accounts}

    async def _token(self, client: ClientSession, code: str, verifier: str, redirect: str) -> str:
        form = {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": verifier,
        }
        address = f"{self.web_url}/login/oauth/access_token"
        async with client.post(
            address, data=form, headers={"Accept": "application/json"}, allow_redirects=False
        ) as response:
            answer = msgspec.json.decode(await response.content.read(_MAX_ANSWER), type=_Token)
        if not answer.access_token:
            log.warning("GitHub gave no token: %s", answer.error[:100])
            raise web.HTTPForbidden(text="GitHub did not confirm who you are: sign in again.")
        return answer.access_token

    async def _organisations(self, client: ClientSession, token: str) -> list[_Account]:
        """Those that somebody is a member of; for an App's token, those that it is installed in. (`/user/orgs` would be
        empty for an App.)
        """
        found: list[_Account] = []
        for number in range(1, _PAGES + 1):
            path = f"/user/memberships/orgs?state=active&per_page=100&page={number}"
            try:
                some = await self._get(client, token, path, list[_Membership])
            except ClientResponseError as error:
                if error.status != _FORBIDDEN:
                    raise
                log.warning("GitHub tells no organisations: the App lacks the permission to read members")
                return []
            found += [each.organization for each in some]
            if len(some) < 100:
                break
        return found

    async def _get(self, client: ClientSession, token: str, path: str, kind: type[T]) -> T:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
        address = self.api_url.rstrip("/") + path
        async with client.get(address, headers=headers, allow_redirects=False, raise_for_status=True) as response:
            return msgspec.json.decode(await response.content.read(_MAX_ANSWER), type=kind)


async def go_to_github(request: web.Request) -> web.Response:
    github = _configured(request)
    flow = Flow(secrets.token_urlsafe(24), secrets.token_urlsafe(48), next_page(request.query.get("next", "")))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest()).rstrip(b"=").decode()
    query: dict[str, Any] = {
        "client_id": github.client_id,
        "redirect_uri": _redirect(request),
        "scope": _SCOPE,
        "state": flow.state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    response = web.Response(
        status=302, headers={"Location": f"{github.web_url}/login/oauth/authorize?{urlencode(query)}"}
    )
    set_cookie(request, response, _COOKIE, request.app[SESSIONS].seal(flow), _FLOW_SECONDS)
    return response


async def come_back(request: web.Request) -> web.Response:
    github = _configured(request)
    flow = request.app[SESSIONS].unseal(request.cookies.get(_COOKIE, ""), Flow, _FLOW_SECONDS)
    if flow is None or not same_text(request.query.get("state", ""), flow.state):
        raise web.HTTPForbidden(text="This sign-in did not begin in this browser, or too long ago: begin again.")
    if not (code := request.query.get("code", "")):
        raise web.HTTPForbidden(text="GitHub was not allowed to tell who you are: sign in again.")
    login, owners = await github.owners(code, flow.verifier, _redirect(request))
    response = signed_in(request, request.app[SESSIONS].begin(login, owners=owners), flow.target)
    set_cookie(request, response, _COOKIE, "", 0)
    return response


def _configured(request: web.Request) -> GitHub:
    github = request.app[GITHUB]()
    if github is None:
        raise web.HTTPNotFound
    return github


def _redirect(request: web.Request) -> str:
    return f"{address_of(request)}/ui/github/back"


ROUTES = (
    web.get("/ui/github", go_to_github),
    web.get("/ui/github/back", come_back),
)
