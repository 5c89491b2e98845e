"""`stoker remove`: remove one function, or those of a stack."""

from __future__ import annotations

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected, required_stack
from stoker_cli.managed import check_leave
from stoker_cli.options import Selection, Target, selection_options, target_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadUsage, NotFound, StokerError


@click.command("remove", cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@target_options
@selection_options
@click.option("--force", is_flag=True, help="Also functions that come from a git repository.")
@click.pass_obj
def remove(
    surroundings: Surroundings, target: Target, selection: Selection, names: tuple[str, ...], force: bool
) -> None:
    """Remove functions: those named, or those of the stack. Calls that are running are finished.

    \b
    stoker remove greet
    stoker remove -f stack.yml --filter 'web-*'
    """
    if names:
        if selection.filter or selection.regex:
            raise BadUsage("--filter and --regex choose from a stack: leave them away, or the names")
        with connected(target, surroundings) as client:
            for name in names:
                check_leave(client, name, target.namespace, force=force)
                client.remove(name, target.namespace)
                click.echo(f"{name}: removed")
        return
    _remove_stack(surroundings, target, selection, force)


def _remove_stack(surroundings: Surroundings, target: Target, selection: Selection, force: bool) -> None:
    """Remove what is there; that some were not deployed is said, and is no failure."""
    from stoker_sdk.stack import select

    stack = required_stack(target, surroundings, selection)
    failed = False
    with connected(target, surroundings, stack) as client:
        for function in select(stack.functions, selection.filter, selection.regex):
            try:
                namespace = target.namespace or function.namespace
                check_leave(client, function.name, namespace, force=force)
                client.remove(function.name, namespace)
                click.echo(f"{function.name}: removed")
            except NotFound:
                click.echo(f"{function.name}: was not deployed")
            except StokerError as error:
                failed = True
                click.echo(f"{function.name}: {error}", err=True)
    if failed:
        raise StokerError("not every function of the stack could be removed")
