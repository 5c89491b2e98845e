"""`stoker publish`: build images for several platforms and push them in one go."""

from __future__ import annotations

import re

import click

from stoker_cli.build_flags import PLATFORM, BuildFlags, build_flags
from stoker_cli.command import Command
from stoker_cli.connection import required_stack
from stoker_cli.options import Selection, Target, selection_options, stack_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadUsage

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@click.command("publish", cls=Command)
@stack_options
@selection_options
@build_flags
@click.option(
    "--platforms", "--platform", default="linux/amd64", metavar="LIST", help="Such as linux/amd64,linux/arm64."
)
@click.option("--extra-tag", multiple=True, metavar="TAG", help="A further tag of the image; may be repeated.")
@click.pass_obj
def publish(
    surroundings: Surroundings,
    target: Target,
    selection: Selection,
    flags: BuildFlags,
    platforms: str,
    extra_tag: tuple[str, ...],
) -> None:
    """Build images with Docker's buildx, for one platform or several, and push them to their registry.

    Every function with a lang and a handler becomes an image, by its template's Dockerfile: images are for
    clusters and other machines, whereas `stoker up` needs none here.

    \b
    stoker publish
    stoker publish --platforms linux/amd64,linux/arm64 --extra-tag stable
    """
    from stoker_cli.images import publish_image
    from stoker_cli.parallel import each
    from stoker_cli.pipeline import named, prepare
    from stoker_cli.progress import progress_of
    from stoker_sdk.stack import StackFunction, select

    if not all(PLATFORM.fullmatch(name) for name in platforms.split(",")):
        raise BadUsage(f"--platforms {platforms[:80]!r} is no list of platforms: write linux/amd64,linux/arm64")
    for text in extra_tag:
        if not _TAG.fullmatch(text):
            raise BadUsage(f"--extra-tag {text[:80]!r} is no tag: use letters, digits, '_', '.' and '-'")
    stack = required_stack(target, surroundings, selection)
    functions = select(stack.functions, selection.filter, selection.regex)
    prepare(stack, functions, flags, surroundings.environment)
    for function in functions:
        if not function.is_built_here:
            click.echo(f"[{function.name}] nothing to build", err=True)

    def one(function: StackFunction) -> str:
        alone = flags.parallel == 1
        with named(function.name), progress_of(function.name, 2, flags.quiet, alone) as progress:
            where = (surroundings.environment, progress)
            return publish_image(stack, function, flags, platforms, extra_tag, *where)

    for image in each([function for function in functions if function.is_built_here], one, flags.parallel):
        click.echo(image)
