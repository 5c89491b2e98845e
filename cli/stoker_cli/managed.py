"""Functions that come from a git repository, which is their truth: a command asks before it changes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stoker_sdk.errors import BadInput, Conflict, NotFound

if TYPE_CHECKING:
    from stoker_sdk.client import ControlClient


def check_leave(client: ControlClient, name: str, namespace: str, *, force: bool) -> None:
    """Raises `Conflict` for a function that a push has deployed, unless `force` says that it is meant."""
    repository = repository_of(client, name, namespace)
    if repository and not force:
        raise Conflict(
            f"{name} comes from the git repository {repository}, whose next push would undo this: "
            "push the change there, or repeat the command with --force"
        )


def warn_of_drift(client: ControlClient, name: str, namespace: str) -> None:
    """Say on standard error that a push will undo what is done."""
    if repository := repository_of(client, name, namespace):
        click.echo(f"{name}: comes from the git repository {repository}; its next push undoes this", err=True)


def repository_of(client: ControlClient, name: str, namespace: str) -> str:
    """`OWNER/NAME` of the repository that the function comes from, else an empty text."""
    from stoker_sdk.origin import origin_of

    try:
        origin = origin_of(client.function(name, namespace).annotations)
    except (NotFound, BadInput):
        return ""
    return f"{origin.owner}/{origin.repository}" if origin else ""
