"""The flags about pushes, of `stoker serve` and `stoker pipeline`: the git remote, and the runs that pushes start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from stoker_cli.forge_flags import read_github_options, read_gitlab_options
from stoker_sdk.errors import BadInput, BadUsage

if TYPE_CHECKING:
    from stoker_builder.images.settings import ImageSettings
    from stoker_cli.server.pipeline import PipelineOptions

_RUN_OPTIONS = (
    click.option(
        "--runs", type=click.IntRange(1, 64), default=2, show_default=True, help="Pushes on their way at once."
    ),
    click.option(
        "--runs-per-owner", type=click.IntRange(1, 64), default=1, show_default=True, help="Of these, of one owner."
    ),
    click.option("--max-push", default="256Mi", show_default=True, help="The largest push."),
    click.option(
        "--max-repositories", default="4Gi", show_default=True, help="What all repositories of an owner may have."
    ),
)
_OPTIONS = (
    click.option("--no-git", is_flag=True, help="No git remote and no runs."),
    click.option("--pipeline", metavar="URL", default="", help="A `stoker pipeline` elsewhere instead of one of ours."),
    *_RUN_OPTIONS,
    click.option(
        "--git-idle", default="5m", show_default=True, help="The pipeline's process ends after so long without work."
    ),
)


def git_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of `stoker serve`, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds those of a pipeline by itself."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


def read_git_options(flags: Mapping[str, Any], images: ImageSettings) -> PipelineOptions:
    """Raises `BadUsage`."""
    from stoker_sdk.units import parse_duration

    if flags["no_git"] and flags["pipeline"]:
        raise BadUsage("--no-git and --pipeline contradict each other: give one of them")
    try:
        idle = parse_duration(flags["git_idle"], "--git-idle")
    except BadInput as error:
        raise BadUsage(str(error)) from error
    elsewhere = _address(flags["pipeline"]) if flags["pipeline"] else ""
    return replace(read_run_options(flags, images), enabled=not flags["no_git"], elsewhere=elsewhere, idle_seconds=idle)


def read_run_options(flags: Mapping[str, Any], images: ImageSettings) -> PipelineOptions:
    """Those of a pipeline by itself, which stays. Raises `BadUsage`."""
    from stoker_cli.server.pipeline import PipelineOptions
    from stoker_sdk.units import parse_quantity

    try:
        max_push = int(parse_quantity(flags["max_push"], "--max-push"))
        max_repositories = int(parse_quantity(flags["max_repositories"], "--max-repositories"))
    except BadInput as error:
        raise BadUsage(str(error)) from error
    return PipelineOptions(
        runs_at_once=flags["runs"],
        runs_per_owner=flags["runs_per_owner"],
        max_push=max_push,
        max_repositories=max_repositories,
        idle_seconds=0,
        github=read_github_options(flags),
        gitlab=read_gitlab_options(flags),
        images=images,
    )


def _address(url: str) -> str:
    """As proxies dial it: `tcp:host:port`."""
    try:
        parts = urlsplit(url)
        more = parts.username or parts.query or parts.fragment or parts.path.strip("/")
        if parts.scheme != "http" or not parts.hostname or more:
            raise ValueError
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"tcp:{host}:{parts.port or 80}"
    except ValueError:
        raise BadUsage(f"--pipeline {url[:80]!r} is not an address: write it as http://HOST:PORT") from None
