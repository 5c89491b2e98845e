"""`stoker build`: build the functions of a stack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from stoker_cli.build_flags import BuildFlags, build_flags, builder_options, one_platform
from stoker_cli.command import Command
from stoker_cli.connection import connected, required_stack
from stoker_cli.options import Selection, Target, selection_options, target_options
from stoker_cli.surroundings import Surroundings


@click.command("build", cls=Command)
@target_options
@selection_options
@build_flags
@builder_options
@click.option("--platform", default="", metavar="NAME", help="Of images, such as linux/arm64.")
@click.option("--shrinkwrap", is_flag=True, help="Only write Docker's build context, into ./build/NAME.")
@click.pass_obj
def build(
    surroundings: Surroundings,
    target: Target,
    selection: Selection,
    flags: BuildFlags,
    builder: dict[str, Any],
    platform: str,
    shrinkwrap: bool,
) -> None:
    """Build the functions of a stack and print their images; deploy nothing.

    The gateway builds what it has a template for, and runs the template's tests: a failing test means no image.
    Functions with `lang: dockerfile`, or with a template that only makes images, are built with Docker here, by
    BuildKit; and so is everything when the gateway's functions run on a cluster, or with --builder docker. With
    --builder buildkit a buildkitd does it, by its client buildctl: an image is then kept by `stoker push` only. The
    log goes to standard error and the images, one a line, to standard output. Unchanged sources build nothing.

    \b
    stoker build
    stoker build --builder docker --build-arg LEVEL=2 --tag sha
    stoker deploy --name greet --image "$(stoker build --filter greet)"
    """
    from stoker_cli.builds import settled
    from stoker_cli.pipeline import build_functions, prepare, shrinkwrap_functions
    from stoker_sdk.stack import select

    stack = required_stack(target, surroundings, selection)
    functions = select(stack.functions, selection.filter, selection.regex)
    flags = replace(flags, **builder, platform=one_platform(platform))
    prepare(stack, functions, flags, surroundings.environment)
    if shrinkwrap:
        shrinkwrap_functions(stack, functions, surroundings.environment)
        return
    with connected(target, surroundings, stack) as client:
        flags = settled(flags, client, stack, functions)
        for image in build_functions(client, stack, functions, flags, surroundings.environment):
            click.echo(image)
