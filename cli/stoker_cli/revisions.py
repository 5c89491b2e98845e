"""`stoker revisions`: the history of a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, json_option, target_options
from stoker_cli.output import print_json, print_table
from stoker_cli.surroundings import Surroundings

if TYPE_CHECKING:
    from stoker_sdk.messages import Revision


@click.command("revisions", cls=Command)
@click.argument("name")
@target_options
@json_option
@click.pass_obj
def revisions(surroundings: Surroundings, target: Target, name: str, as_json: bool) -> None:
    """List what was deployed of a function, the oldest first: when, which image, what changed, and which one serves.

    The last ten are kept, or as many as the annotation stoker.dev/revisions says (2 to 100), with all that
    `stoker rollback` needs. They go with the function.

    \b
    stoker revisions greet
    stoker revisions greet --json
    """
    with connected(target, surroundings) as client:
        found = client.revisions(name, target.namespace)
    if as_json:
        print_json(found)
    else:
        print_table(("Revision", "CreatedAt", "State", "Image", "Changed"), list(map(row, found)))


def row(revision: Revision) -> tuple[str, ...]:
    """The cells of one revision. A digest is cut to twelve characters: it is there to tell two apart."""
    state = "serving" if revision.serving else "failed" if revision.failed else ""
    image, _, digest = revision.image.partition("@sha256:")
    digest = digest or revision.digest.removeprefix("sha256:")
    changed = ", ".join(revision.changed)
    if revision.rollback_to:
        why = f", because {revision.number - 1} failed" if revision.automatic else ""
        changed = f"rollback to {revision.rollback_to}{why}" + (f": {changed}" if changed else "")
    elif revision.number == 1:
        changed = "created"
    return str(revision.number), revision.created_at, state, f"{image}@{digest[:12]}" if digest else image, changed
