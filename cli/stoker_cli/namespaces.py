"""`stoker namespaces`: the namespaces of the platform."""

from __future__ import annotations

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, json_option, target_options
from stoker_cli.output import print_json, print_table
from stoker_cli.surroundings import Surroundings


@click.command("namespaces", cls=Command)
@target_options
@json_option
@click.pass_obj
def namespaces(surroundings: Surroundings, target: Target, as_json: bool) -> None:
    """List the namespaces of the platform.

    \b
    stoker namespaces
    stoker namespaces --json
    """
    with connected(target, surroundings) as client:
        names = sorted(client.namespaces())
    if as_json:
        print_json(names)
    else:
        print_table(("Namespace",), [(name,) for name in names])
