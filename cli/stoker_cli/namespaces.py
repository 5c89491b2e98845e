"""`stoker namespaces`: the namespaces of the platform, by the older name of `namespace list`."""

from __future__ import annotations

import click

from stoker_cli.command import Command
from stoker_cli.namespace import print_namespaces
from stoker_cli.options import Target, json_option, target_options
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
    print_namespaces(surroundings, target, as_json)
