"""`stoker up`: build and deploy every function of a stack."""

from __future__ import annotations

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected, required_stack
from stoker_cli.deploy_options import Rollout, deploy_options
from stoker_cli.options import Selection, Target, selection_options, target_options
from stoker_cli.surroundings import Surroundings


@click.command("up", cls=Command)
@target_options
@selection_options
@deploy_options
@click.pass_obj
def up(surroundings: Surroundings, target: Target, selection: Selection, rollout: Rollout) -> None:
    """Build and deploy the functions of a stack, wait until they are ready, and print their URLs.

    Functions with skip_build, or without a lang and a handler, are deployed with the image that the stack
    names. The first failure ends the command; functions that were deployed before stay. Unchanged sources
    build nothing.

    \b
    stoker up
    stoker up -f stack.yml --filter 'web-*' --label team=blue
    """
    from dataclasses import replace

    from stoker_cli.pipeline import deploy_functions
    from stoker_sdk.stack import select

    stack = required_stack(target, surroundings, selection)
    functions = select(stack.functions, selection.filter, selection.regex)
    rollout = replace(rollout, overrides=replace(rollout.overrides, namespace=target.namespace))
    with connected(target, surroundings, stack) as client:
        deploy_functions(client, stack, functions, rollout, lambda function: function.is_built_here)
