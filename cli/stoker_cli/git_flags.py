"""The flags of `stoker serve` about pushes: the platform's git remote, and the runs that pushes start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from stoker_cli.forge_flags import read_github_options, read_gitlab_options
from stoker_sdk.errors import BadInput, BadUsage

if TYPE_CHECKING:
    from stoker_builder.images.settings import ImageSettings
    from stoker_cli.server.pipeline import PipelineOptions

_OPTIONS = (
    click.option("--no-git", is_flag=True, help="No git remote and no runs."),
    click.option(
        "--runs", type=click.IntRange(1, 64), default=2, show_default=True, help="Pushes on their way at once."
    ),
    click.option(
        "--runs-per-owner", type=click.IntRange(1, 64), default=1, show_default=True, help="Of these, of one owner."
    ),
    click.option("--max-push", default="256Mi", show_default=True, help="The largest push."),
    click.option(
        "--git-idle", default="5m", show_default=True, help="The pipeline's process ends after so long without work."
    ),
)


def git_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_git_options(flags: Mapping[str, Any], images: ImageSettings) -> PipelineOptions:
    """Raises `BadUsage`."""
    from stoker_cli.server.pipeline import PipelineOptions
    from stoker_sdk.units import parse_duration, parse_quantity

    try:
        max_push = int(parse_quantity(flags["max_push"], "--max-push"))
        idle = parse_duration(flags["git_idle"], "--git-idle")
    except BadInput as error:
        raise BadUsage(str(error)) from error
    return PipelineOptions(
        enabled=not flags["no_git"],
        runs_at_once=flags["runs"],
        runs_per_owner=flags["runs_per_owner"],
        max_push=max_push,
        idle_seconds=idle,
        github=read_github_options(flags),
        gitlab=read_gitlab_options(flags),
        images=images,
    )
