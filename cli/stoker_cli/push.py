"""`stoker push`: push the images of a stack to their registry."""

from __future__ import annotations

from typing import Any

import click

from stoker_cli.build_flags import BuildFlags, builder_options, tag_option
from stoker_cli.command import Command
from stoker_cli.connection import required_stack
from stoker_cli.options import Selection, Target, selection_options, stack_options
from stoker_cli.surroundings import Surroundings


@click.command("push", cls=Command)
@stack_options
@selection_options
@tag_option
@builder_options
@click.option("--parallel", type=click.IntRange(1, 32), default=1, metavar="N", help="So many at a time. [default: 1]")
@click.pass_obj
def push(
    surroundings: Surroundings, target: Target, selection: Selection, tag: str, builder: dict[str, Any], parallel: int
) -> None:
    """Push the images of a stack with Docker, after `stoker build`.

    What the gateway has built lies there already, so that there is nothing to push; what --builder docker or buildkit
    has built is pushed with that flag. Functions with skip_build are left out. An image needs a registry or an owner
    in its name, such as ghcr.io/me/greet. Standard output has each image with the digest that its registry names.

    \b
    stoker push
    stoker push --filter 'web-*' --tag sha
    stoker deploy --name greet --image "$(stoker push --builder docker --filter greet)"
    """
    from stoker_cli.builds import is_image
    from stoker_cli.images import push_image
    from stoker_cli.parallel import each
    from stoker_cli.pipeline import named
    from stoker_cli.progress import progress_of
    from stoker_sdk.stack import StackFunction, select

    stack = required_stack(target, surroundings, selection)
    flags = BuildFlags(tag=tag, **builder)
    chosen = [each for each in select(stack.functions, selection.filter, selection.regex) if not each.skip_build]
    pushed = [each for each in chosen if is_image(stack, each, flags) or not each.is_built_here]
    for function in chosen:
        if function not in pushed:
            click.echo(f"{function.name}: nothing to push: the gateway builds it and keeps it", err=True)

    def one(function: StackFunction) -> str:
        with named(function.name), progress_of(function.name, 1, alone=parallel == 1) as progress:
            return push_image(stack, function, flags, surroundings.environment, progress)

    for image in each(pushed, one, parallel):
        click.echo(image)
