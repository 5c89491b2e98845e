"""`stoker logout`: forget the credentials for a gateway."""

from __future__ import annotations

import click

from stoker_cli.command import Command
from stoker_cli.connection import gateway_of
from stoker_cli.options import Target, target_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import NotFound


@click.command("logout", cls=Command)
@target_options
@click.pass_obj
def logout(surroundings: Surroundings, target: Target) -> None:
    """Forget the credentials for a gateway.

    \b
    stoker logout --gateway https://functions.example.org
    """
    gateway = gateway_of(target, surroundings)
    if not surroundings.credentials.remove(gateway):
        raise NotFound(f"there are no credentials for {gateway} in {surroundings.credentials.path}")
    click.echo(f"credentials removed for {gateway}")
