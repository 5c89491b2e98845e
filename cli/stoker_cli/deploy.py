"""`stoker deploy`: deploy the functions of a stack, or one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoker_cli.build_flags import BuildFlags, tag_option
from stoker_cli.command import Command
from stoker_cli.connection import connected, required_stack
from stoker_cli.deploy_options import Rollout, deploy_options
from stoker_cli.options import Selection, Target, selection_options, target_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadUsage

if TYPE_CHECKING:
    from stoker_cli.progress import Progress
    from stoker_sdk.client import ControlClient
    from stoker_sdk.stack import Stack, StackFunction


@click.command("deploy", cls=Command)
@target_options
@selection_options
@deploy_options
@tag_option
@click.option("--name", default="", metavar="NAME", help="The function: of the stack, or with --image a new one.")
@click.option("--image", default="", metavar="IMAGE", help="The image, in place of the stack's and of a build.")
@click.pass_obj
def deploy(
    surroundings: Surroundings,
    target: Target,
    selection: Selection,
    rollout: Rollout,
    tag: str,
    name: str,
    image: str,
) -> None:
    """Deploy the functions of a stack, or with --name and --image one function without a stack.

    A function of a stack that the gateway can build is built first, unless skip_build is set, its image carries a
    digest (NAME@sha256:...), or --image is given; for a gateway on a cluster the image that `stoker up` would make is
    taken as it is. Unchanged sources build nothing. A function that exists already
    is changed without losing a call; with --update=false it is refused, with --replace removed first.

    \b
    stoker deploy -f stack.yml --env LEVEL=debug
    stoker deploy --name greet --image stoker.local/greet@sha256:... --secret api-key
    """
    from stoker_cli.builds import needs_build, settled
    from stoker_cli.pipeline import deploy_functions, prepare
    from stoker_sdk.stack import Stack, StackFunction, select

    rollout = replace(rollout, overrides=replace(rollout.overrides, namespace=target.namespace, image=image))
    if name and image and not target.stack_files:
        with connected(target, surroundings, timeout=rollout.timeout) as client:
            deploy_functions(client, Stack("", Path()), (StackFunction(name),), rollout, lambda *_: "")
        return
    stack = required_stack(target, surroundings, selection)
    functions = select(stack.functions, name or selection.filter, selection.regex)
    if image and len(functions) > 1:
        raise BadUsage(f"--image is for one function, and {len(functions)} are chosen: choose one with --name")
    flags = BuildFlags(rollout.build_arguments, tag=tag)
    prepare(stack, functions, flags, surroundings.environment)
    with connected(target, surroundings, stack, rollout.timeout) as client:
        flags = settled(flags, client, stack, [each for each in functions if needs_build(each, image)])
        images = _images(client, stack, flags, surroundings.environment, image)
        deploy_functions(client, stack, functions, rollout, images)


def _images(
    client: ControlClient, stack: Stack, flags: BuildFlags, environment: Mapping[str, str], image: str
) -> Callable[[StackFunction, Progress], str]:
    """The images for `deploy`: built when the gateway can and must, else named."""
    from stoker_cli.builds import is_image, make, needs_build
    from stoker_cli.images import image_name

    def chosen(function: StackFunction, progress: Progress) -> str:
        if image:
            return image
        if is_image(stack, function, flags):
            return image_name(stack, function, flags.tag, environment)
        if needs_build(function, image):
            return make(client, stack, function, flags, environment, progress)
        return ""

    return chosen
