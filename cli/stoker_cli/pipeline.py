"""The way of one function from source to a URL: build, deploy, wait. `up` and `deploy` differ only in when
they build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import click

from stoker_cli.builds import build
from stoker_cli.deploy_options import Rollout
from stoker_cli.progress import Progress, progress_of
from stoker_cli.rollout import deploy, wait_until_ready
from stoker_sdk.client import ControlClient
from stoker_sdk.deployment import Overrides, function_spec
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.function import FunctionSpec
from stoker_sdk.gateway_address import function_url
from stoker_sdk.stack import Stack, StackFunction


def deploy_functions(
    client: ControlClient,
    stack: Stack,
    functions: tuple[StackFunction, ...],
    rollout: Rollout,
    builds: Callable[[StackFunction], bool],
) -> None:
    """Deploy one after the other, building those that `builds` names, and print a URL for each.

    Stops at the first failure; functions that were deployed before stay.
    """
    for function in functions:
        with _named(function.name), progress_of(function.name, steps=3) as progress:
            overrides = rollout.overrides
            if builds(function):
                image = build(client, stack, function, rollout.build_arguments, progress)
                overrides = replace(overrides, image=image)
            spec = _spec(function, overrides)
            deploy_one(client, spec, rollout, progress)
        click.echo(f"{function.name}: {function_url(client.gateway, spec.service, spec.namespace)}")


def deploy_one(client: ControlClient, spec: FunctionSpec, rollout: Rollout, progress: Progress) -> None:
    """Deploy a function and, unless told otherwise, wait until it is ready."""
    progress.step("deploying")
    revision = deploy(client, spec, rollout.mode)
    if rollout.patience:
        wait_until_ready(client, spec, revision, rollout.patience, progress)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of ours say which function they are about."""
    try:
        yield
    except StokerError as error:
        raise type(error)(f"function {name!r}: {error}") from None


def _spec(function: StackFunction, overrides: Overrides) -> FunctionSpec:
    spec = function_spec(function, overrides)
    if not spec.image:
        raise BadInput(
            "there is no image, and not both `lang` and `handler` to build one from: "
            "write them into the stack file, or give --image"
        )
    spec.check()
    return spec
