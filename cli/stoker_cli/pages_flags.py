"""The flags of `stoker serve` about its pages, and their values, checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from stoker_sdk.errors import BadUsage
from stoker_sdk.github_app import PUBLIC_API

_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")


@dataclass(frozen=True)
class PagesOptions:
    """`host` is empty where the pages are on every host; `github_client_id` where nobody signs in with GitHub."""

    enabled: bool = True
    host: str = ""
    public_badges: bool = False
    github_client_id: str = ""
    github_secret_file: Path | None = None
    github_api_url: str = PUBLIC_API
    idle_seconds: float = 300.0

    @property
    def hosts(self) -> tuple[str, ...]:
        """The pages' own host, if there is one."""
        return (self.host,) if self.host else ()


_OPTIONS = (
    click.option("--no-pages", is_flag=True, help="No pages for browsers under /ui/."),
    click.option(
        "--pages-host",
        default="",
        metavar="HOST",
        help="The pages are on this host alone, which serves nothing else; needed for sign-in with GitHub.",
    ),
    click.option("--public-badges", is_flag=True, help="Badges need no key in their address."),
    click.option(
        "--github-oauth-client-id",
        default="",
        metavar="ID",
        help="Owners sign in with GitHub by this OAuth application [the App of `stoker github setup --pages-host`].",
    ),
    click.option(
        "--github-oauth-secret-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        default=None,
        help="The OAuth application's client secret.",
    ),
    click.option(
        "--github-oauth-api-url",
        default="",
        metavar="URL",
        help="https://HOST/api/v3 for an own server [that of --github-api-url].",
    ),
)


def pages_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_pages_options(given: Mapping[str, Any]) -> PagesOptions:
    """Raises `BadUsage`."""
    host, id, secret = given["pages_host"].lower(), given["github_oauth_client_id"], given["github_oauth_secret_file"]
    if host and not _HOST.fullmatch(host):
        raise BadUsage(f"--pages-host {host[:80]!r} is no host name: write one such as pages.example.org, without port")
    if bool(id) != (secret is not None):
        raise BadUsage("--github-oauth-client-id and --github-oauth-secret-file belong together: give both")
    if id and not host:
        raise BadUsage(
            "--github-oauth-client-id needs --pages-host: what owners deploy must not share a host with the pages, "
            "or its scripts could use the session of whoever is signed in"
        )
    url = given["github_oauth_api_url"] or given["github_api_url"] or PUBLIC_API
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise BadUsage(f"--github-oauth-api-url {url[:80]!r} is no address: write {PUBLIC_API}, or https://HOST/api/v3")
    return PagesOptions(
        enabled=not given["no_pages"],
        host=host,
        public_badges=given["public_badges"],
        github_client_id=id,
        github_secret_file=secret.absolute() if secret else None,
        github_api_url=url,
    )
