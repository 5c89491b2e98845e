"""`stoker owners`: which account of GitHub or GitLab has which owner's name here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, json_option, target_options
from stoker_cli.output import print_json, print_table
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import Conflict

if TYPE_CHECKING:
    from stoker_sdk.client import ControlClient


@click.group("owners", context_settings={"help_option_names": ["-h", "--help"]})
def owners() -> None:
    """Names of owners: each belongs to the account of GitHub or GitLab that pushed under it first, by its number.

    Functions, hosts and secrets go by the name. So who takes over a login that somebody gave up, or has the same one
    elsewhere, gets none of these: such a push fails until the name is released.

    \b
    stoker owners list
    stoker owners release alice
    """


@owners.command("list", cls=Command)
@target_options
@json_option
@click.pass_obj
def list_owners(surroundings: Surroundings, target: Target, as_json: bool) -> None:
    """List the names that are taken, and by whom.

    \b
    stoker owners list
    """
    with connected(target, surroundings) as client:
        found = client.runs.owners()
    if as_json:
        print_json(found)
    else:
        print_table(("Owner", "Forge", "Account"), [(each.owner, each.forge, str(each.id)) for each in found])


owners.add_command(list_owners, "ls")


@owners.command("release", cls=Command)
@click.argument("owner")
@target_options
@click.option("--force", is_flag=True, help="Also while there are functions or secrets of that name.")
@click.pass_obj
def release(surroundings: Surroundings, target: Target, owner: str, force: bool) -> None:
    """Give a name free: the next account that pushes under it has it, and its secrets.

    \b
    stoker owners release alice
    """
    with connected(target, surroundings) as client:
        left = [] if force else _left(client, owner.lower())
        if left:
            raise Conflict(
                f"{owner} still has {', '.join(left)}: the next account of that name would have its secrets; "
                "remove them (`stoker remove`, `stoker secret remove`), or repeat the command with --force"
            )
        was = client.runs.release_owner(owner)
    click.echo(f"{was.owner} is free: it was the account {was.account}'s")


def _left(client: ControlClient, owner: str) -> list[str]:
    """What of the owner's is still there, for people to read."""
    from stoker_sdk.origin import OWNER

    functions = [each.name for each in client.functions() if (each.annotations or {}).get(OWNER) == owner]
    secrets = [each.name for each in client.secrets() if each.name.startswith(f"{owner}.")]
    return [f"function {name}" for name in functions] + [f"secret {name}" for name in secrets]
