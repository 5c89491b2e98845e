"""`stoker build`: build the functions of a stack."""

from __future__ import annotations

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected, required_stack
from stoker_cli.options import Selection, Target, selection_options, target_options
from stoker_cli.surroundings import Surroundings


@click.command("build", cls=Command)
@target_options
@selection_options
@click.option("-b", "--build-arg", multiple=True, metavar="NAME=VALUE", help="A build argument; may be repeated.")
@click.pass_obj
def build(surroundings: Surroundings, target: Target, selection: Selection, build_arg: tuple[str, ...]) -> None:
    """Build the functions of a stack and print their images; deploy nothing.

    The log goes to standard error and the images, one a line, to standard output. The template's test step
    runs, and a failing test means no image. Unchanged sources build nothing.

    \b
    stoker build
    stoker deploy --name greet --image "$(stoker build --filter greet)"
    """
    from stoker_cli.builds import build as build_function
    from stoker_cli.deploy_options import pairs
    from stoker_cli.progress import progress_of
    from stoker_sdk.stack import select

    arguments = pairs(build_arg, "--build-arg")
    stack = required_stack(target, surroundings, selection)
    functions = select(stack.functions, selection.filter, selection.regex)
    with connected(target, surroundings, stack) as client:
        for function in functions:
            if not function.is_built_here:
                click.echo(f"[{function.name}] nothing to build", err=True)
                continue
            with progress_of(function.name, steps=1) as progress:
                image = build_function(client, stack, function, arguments, progress)
            click.echo(image)
