"""`stoker deploy`: deploy the functions of a stack, or one image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected, required_stack
from stoker_cli.deploy_options import Rollout, deploy_options
from stoker_cli.options import Selection, Target, selection_options, target_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadUsage


@click.command("deploy", cls=Command)
@target_options
@selection_options
@deploy_options
@click.option("--name", default="", metavar="NAME", help="The function: of the stack, or with --image a new one.")
@click.option("--image", default="", metavar="IMAGE", help="The image, in place of the stack's and of a build.")
@click.pass_obj
def deploy(
    surroundings: Surroundings, target: Target, selection: Selection, rollout: Rollout, name: str, image: str
) -> None:
    """Deploy the functions of a stack, or with --name and --image one function without a stack.

    A function of a stack that has a lang and a handler is built first, unless skip_build is set, its image
    carries a digest (NAME@sha256:...), or --image is given. Unchanged sources build nothing. A function that
    exists already is changed without losing a call; with --update=false it is refused, with --replace removed
    first.

    \b
    stoker deploy -f stack.yml --env LEVEL=debug
    stoker deploy --name greet --image stoker.local/greet@sha256:... --secret api-key
    """
    from stoker_cli.builds import needs_build
    from stoker_cli.pipeline import deploy_functions
    from stoker_sdk.stack import Stack, StackFunction, select

    rollout = replace(rollout, overrides=replace(rollout.overrides, namespace=target.namespace, image=image))
    if name and image and target.stack_file is None:
        function = StackFunction(name)
        with connected(target, surroundings) as client:
            deploy_functions(client, Stack("", Path()), (function,), rollout, lambda _: False)
        return
    stack = required_stack(target, surroundings, selection)
    functions = select(stack.functions, name or selection.filter, selection.regex)
    if image and len(functions) > 1:
        raise BadUsage(f"--image is for one function, and {len(functions)} are chosen: choose one with --name")
    with connected(target, surroundings, stack) as client:
        deploy_functions(client, stack, functions, rollout, lambda function: needs_build(function, image))
