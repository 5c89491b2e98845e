"""`stoker scale`: set a function's number of replicas."""

from __future__ import annotations

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, target_options
from stoker_cli.surroundings import Surroundings


@click.command("scale", cls=Command)
@click.argument("name")
@click.argument("replicas", type=click.IntRange(min=0))
@target_options
@click.pass_obj
def scale(surroundings: Surroundings, target: Target, name: str, replicas: int) -> None:
    """Set a function's number of replicas. At 0 it starts again with the next call.

    \b
    stoker scale greet 3
    """
    with connected(target, surroundings) as client:
        client.scale(name, replicas, target.namespace)
    click.echo(f"{name}: {replicas} {'replica' if replicas == 1 else 'replicas'} asked for")
