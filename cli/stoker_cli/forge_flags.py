"""The flags of `stoker serve` about GitHub and GitLab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stoker_sdk.errors import BadUsage
from stoker_sdk.github_app import PUBLIC_API

if TYPE_CHECKING:
    from stoker_builder.pipeline.github.connection import GitHubSettings
    from stoker_builder.pipeline.gitlab.connection import GitLabSettings

_FILE = click.Path(exists=True, dir_okay=False)
_OPTIONS = (
    click.option("--github-app-id", default="", metavar="ID", help="Your App [the one of `stoker github setup`]."),
    click.option("--github-key-file", type=_FILE, default=None, help="The App's private key (PEM)."),
    click.option("--github-token-file", type=_FILE, default=None, help="A token instead of an App."),
    click.option("--github-webhook-secret-file", type=_FILE, default=None, help="Secrets of webhooks, one a line."),
    click.option("--github-api-url", default="", metavar="URL", help="GitHub Enterprise: https://HOST/api/v3."),
    click.option("--github-owners-file", type=_FILE, default=None, help="Whose pushes count, a login a line [all]."),
    click.option("--github-fork-previews", is_flag=True, help="Forks' pull requests need no label to be built."),
    click.option(
        "--gitlab-token-file", type=_FILE, default=None, help="A token that reads projects and sets statuses."
    ),
    click.option("--gitlab-webhook-secret-file", type=_FILE, default=None, help="Secrets of hooks, one a line."),
    click.option("--gitlab-url", default="", metavar="URL", help="Your own GitLab [https://gitlab.com]."),
)


def forge_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_github_options(flags: Mapping[str, Any]) -> GitHubSettings:
    """Raises `BadUsage` for flags that do not go together."""
    from stoker_builder.pipeline.github.connection import GitHubSettings, web_url

    app, key, token = flags["github_app_id"], flags["github_key_file"], flags["github_token_file"]
    if bool(app) != bool(key):
        raise BadUsage("--github-app-id and --github-key-file go together: give both")
    if app and token:
        raise BadUsage("--github-app-id and --github-token-file are two ways of one thing: give one of them")
    if bool(app or token) != bool(flags["github_webhook_secret_file"]):
        raise BadUsage(
            "--github-webhook-secret-file is missing, or has neither --github-app-id nor --github-token-file beside it"
        )
    api_url = flags["github_api_url"] or PUBLIC_API
    web_url(api_url)
    return GitHubSettings(
        app_id=app,
        key_file=_path(key),
        token_file=_path(token),
        webhook_secret_file=_path(flags["github_webhook_secret_file"]),
        api_url=api_url,
        owners_file=_path(flags["github_owners_file"]),
        fork_previews=flags["github_fork_previews"],
    )


def read_gitlab_options(flags: Mapping[str, Any]) -> GitLabSettings:
    """Raises `BadUsage` for flags that do not go together."""
    from stoker_builder.pipeline.gitlab.connection import PUBLIC, GitLabSettings, check_url

    token, secret = flags["gitlab_token_file"], flags["gitlab_webhook_secret_file"]
    if bool(token) != bool(secret):
        raise BadUsage("--gitlab-token-file and --gitlab-webhook-secret-file go together: give both")
    url = flags["gitlab_url"] or PUBLIC
    check_url(url)
    return GitLabSettings(url, _path(token), _path(secret))


def _path(name: str | None) -> str:
    return str(Path(name).absolute()) if name else ""
