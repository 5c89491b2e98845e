"""GitHub's App manifest flow: a page here describes the App to GitHub, and is called back with a code for its secrets.

    browser ─► our page ─► GitHub: "Create GitHub App" ─► our page with code and state ─► GitHub's API ─► the App

The page listens on this machine only. The state is random, so that nobody else's code is taken.
"""

from __future__ import annotations

import hmac
import html
import json
import re
import secrets
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from stoker_sdk.errors import BadInput, BadUsage, StokerError
from stoker_sdk.github_app import PUBLIC_API, GitHubApp

_SECONDS: Final = 3600.0
"""For which a code is good at GitHub."""
_CODE: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_LOGIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_PERMISSIONS: Final = {
    "contents": "read",
    "metadata": "read",
    "checks": "write",
    "statuses": "write",
    "pull_requests": "write",
}
_FOR_PAGES: Final = {"members": "read"}
"""Of organisations: by it GitHub tells which of them somebody who signs in is a member of."""
_EVENTS: Final = ("push", "pull_request", "repository", "check_run", "check_suite")
_MAX_NAME: Final = 34
"""Characters that GitHub takes for the name of an App."""
_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Stoker and GitHub</title>
<body><h1>Connect Stoker with GitHub</h1>
<p>The next page is GitHub's: press the button there.</p>
<form method="post" action="{action}"><input type="hidden" name="manifest" value="{manifest}">
<button>Go on to GitHub</button></form>
<script>document.forms[0].submit()</script></body></html>
"""


@dataclass(frozen=True)
class AppRequest:
    """What is asked of GitHub: `url` is the platform's, `github_url` GitHub's; `pages_host` is where people sign in by
    the App, empty for nowhere. Raises `BadUsage`.
    """

    url: str
    organization: str
    name: str
    github_url: str
    pages_host: str = ""

    def __post_init__(self) -> None:
        for flag, url in (("--url", self.url), ("--github-url", self.github_url)):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
                raise BadUsage(f"{flag} is {url[:100]!r}: write https://HOST")
        if self.organization and not _LOGIN.fullmatch(self.organization):
            raise BadUsage(f"--organization is {self.organization[:60]!r}, which is no name of GitHub's")
        if self.pages_host and urlsplit(f"//{self.pages_host}").hostname != self.pages_host:
            raise BadUsage(f"--pages-host is {self.pages_host[:80]!r}: write the host of `stoker serve --pages-host`")

    @property
    def api_url(self) -> str:
        base = self.github_url.rstrip("/")
        return PUBLIC_API if urlsplit(base).hostname == "github.com" else f"{base}/api/v3"

    def action(self, state: str) -> str:
        """Where the form goes."""
        base = self.github_url.rstrip("/")
        place = f"/organizations/{quote(self.organization)}" if self.organization else ""
        return f"{base}{place}/settings/apps/new?state={state}"

    def manifest(self, redirect_url: str) -> dict[str, Any]:
        base = self.url.rstrip("/")
        return {
            "name": (self.name or f"Stoker at {urlsplit(base).hostname}")[:_MAX_NAME],
            "url": base,
            "hook_attributes": {"url": f"{base}/github/webhook", "active": True},
            "redirect_url": redirect_url,
            "callback_urls": [self._callback] if self.pages_host else [],
            "public": False,
            "default_permissions": _PERMISSIONS | (_FOR_PAGES if self.pages_host else {}),
            "default_events": list(_EVENTS),
        }

    @property
    def _callback(self) -> str:
        """The pages are on the platform's port, like everything of it."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{self.pages_host}{port}/ui/github/back"


class SetupPage:
    """The page, for as long as the context lasts."""

    def __init__(self, request: AppRequest, port: int) -> None:
        self._request = request
        self._state = secrets.token_urlsafe(24)
        self._app: GitHubApp | None = None
        page = self

        class Answers(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                page.answer(self)

            def log_message(self, *_: object) -> None:
                """Its lines would hold the code."""

        try:
            self._server = HTTPServer(("127.0.0.1", port), Answers)
        except OSError as error:
            raise StokerError(f"port {port} is not free ({error.strerror}): choose another one by --port") from None
        self._server.timeout = 1.0
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> SetupPage:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self) -> GitHubApp:
        """The App, when it is made. Raises `StokerError` after an hour."""
        deadline = time.monotonic() + _SECONDS
        while self._app is None:
            if time.monotonic() > deadline:
                raise StokerError("nobody made the App within an hour: run the command again")
            self._server.handle_request()
        return self._app

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(asked.path)
        if parts.path == "/":
            _send(asked, 200, self._form())
        elif parts.path == "/created":
            self._created(asked, parse_qs(parts.query))
        else:
            _send(asked, 404, "There is nothing here.")

    def _form(self) -> str:
        manifest = json.dumps(self._request.manifest(f"{self.url}created"))
        return _PAGE.format(action=html.escape(self._request.action(self._state)), manifest=html.escape(manifest))

    def _created(self, asked: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        state, code = query.get("state", [""])[0], query.get("code", [""])[0]
        if not hmac.compare_digest(state.encode(), self._state.encode()) or not _CODE.fullmatch(code):
            _send(asked, 400, "This is not the answer that the command waits for: begin at its page again.")
            return
        try:
            self._app = exchange(code, self._request)
        except StokerError as error:
            _send(asked, 502, html.escape(str(error)))
            return
        asked.send_response(303)
        asked.send_header("Location", f"{self._app.html_url}/installations/new")
        asked.end_headers()


class _Made(msgspec.Struct, frozen=True):
    """GitHub's answer; there is more in it."""

    id: int
    slug: str
    pem: str
    webhook_secret: str
    html_url: str
    client_id: str = ""
    client_secret: str = ""


def exchange(code: str, request: AppRequest) -> GitHubApp:
    """The App that a code stands for; GitHub tells it once. Raises `StokerError`."""
    from github import Github, GithubException
    from requests import RequestException

    api_url = request.api_url
    try:
        _, data = Github(base_url=api_url, retry=None, timeout=30, user_agent="stoker").requester.requestJsonAndCheck(
            "POST", f"/app-manifests/{code}/conversions"
        )
        made = msgspec.convert(data, _Made)
    except (GithubException, RequestException, msgspec.ValidationError) as error:
        raise StokerError(f"GitHub does not tell the App's secrets ({type(error).__name__}): begin again") from None
    if urlsplit(made.html_url).scheme not in ("http", "https"):
        raise BadInput("GitHub's answer has no address of the App")
    return GitHubApp(
        made.id,
        made.slug,
        made.pem,
        made.webhook_secret,
        made.html_url,
        made.client_id,
        made.client_secret,
        api_url,
        request.pages_host,
    )


def _send(asked: BaseHTTPRequestHandler, status: int, text: str) -> None:
    body = text.encode()
    asked.send_response(status)
    asked.send_header("Content-Type", "text/html; charset=utf-8")
    asked.send_header("Content-Length", str(len(body)))
    asked.send_header("Cache-Control", "no-store")
    asked.end_headers()
    asked.wfile.write(body)
