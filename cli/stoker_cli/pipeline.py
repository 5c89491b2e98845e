"""The way of one function from source to a URL: build, push, deploy, wait. `up` and `deploy` differ only in when
they build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import click

from stoker_builder.images.context import write_context
from stoker_builder.request import template_of
from stoker_cli.build_flags import BuildFlags
from stoker_cli.builds import is_image, make
from stoker_cli.deploy_options import Rollout
from stoker_cli.managed import check_leave
from stoker_cli.parallel import each
from stoker_cli.progress import Progress, progress_of
from stoker_sdk.client import ControlClient
from stoker_sdk.deployment import Overrides, function_spec
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.function import FunctionSpec
from stoker_sdk.gateway_address import function_url
from stoker_sdk.rollout import deploy, wait_until_ready
from stoker_sdk.stack import Stack, StackFunction


def prepare(
    stack: Stack, functions: Sequence[StackFunction], flags: BuildFlags, environment: Mapping[str, str]
) -> None:
    """Find what is wrong before anything is built: every handler folder is looked at, missing templates are pulled."""
    for function in functions:
        if function.is_built_here:
            stack.handler_folder(function)
    if flags.pulls_templates and any(part.templates for part in stack.parts or (stack,)):
        from stoker_cli.stack_templates import pull_templates

        pull_templates(stack, environment, lambda line: click.echo(line, err=True))


def build_functions(
    client: ControlClient,
    stack: Stack,
    functions: Sequence[StackFunction],
    flags: BuildFlags,
    environment: Mapping[str, str],
    *,
    push: bool = False,
) -> Iterator[str]:
    """Build those that have source, so many at a time as the flags say, and give their images in order."""
    built = [function for function in functions if function.is_built_here]
    for function in functions:
        if function not in built:
            click.echo(f"[{function.name}] nothing to build", err=True)

    def one(function: StackFunction) -> str:
        alone = flags.parallel == 1
        with named(function.name), progress_of(function.name, 1, flags.quiet, alone) as progress:
            return make(client, stack, function, flags, environment, progress, push=push)

    yield from each(built, one, flags.parallel)


def shrinkwrap_functions(stack: Stack, functions: Sequence[StackFunction], environment: Mapping[str, str]) -> None:
    """Write the build contexts and print their folders."""
    from stoker_cli.images import image_order

    for function in functions:
        if function.is_built_here:
            with named(function.name):
                order = image_order(stack, function, BuildFlags(), environment)
                click.echo(write_context(order.request, order.context))


def deploy_functions(
    client: ControlClient,
    stack: Stack,
    functions: Sequence[StackFunction],
    rollout: Rollout,
    images: Callable[[StackFunction, Progress], str],
) -> None:
    """Deploy one after the other, with the images that `images` gives or makes, and print a URL for each. An empty
    one is that of the stack or of the flags.

    Stops at the first failure; functions that were deployed before stay.
    """
    for function in functions:
        with named(function.name), progress_of(function.name, steps=3) as progress:
            overrides = rollout.overrides
            image = images(function, progress)
            spec = checked_spec(stack, function, replace(overrides, image=image) if image else overrides)
            deploy_one(client, spec, rollout, progress)
        click.echo(f"{function.name}: {function_url(client.gateway, spec.service, spec.namespace)}")


def deploy_one(client: ControlClient, spec: FunctionSpec, rollout: Rollout, progress: Progress) -> None:
    """Deploy a function and, unless told otherwise, wait until it is ready."""
    check_leave(client, spec.service, spec.namespace, force=rollout.force)
    progress.step("deploying")
    revision = deploy(client, spec, rollout.mode)
    if rollout.patience:
        wait_until_ready(client, spec, revision, rollout.patience, progress)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Errors of ours say which function they are about."""
    try:
        yield
    except StokerError as error:
        raise type(error)(f"function {name!r}: {error}") from None


def checked_spec(stack: Stack, function: StackFunction, overrides: Overrides) -> FunctionSpec:
    """The deploy request. An image by Docker gets its template's process, where the stack names none (section 9.2)."""
    if not (function.fprocess or overrides.fprocess) and is_image(stack, function, BuildFlags()):
        template = template_of(stack, function)
        overrides = replace(overrides, fprocess=template.fprocess if template else "")
    spec = function_spec(function, overrides)
    if not spec.image:
        raise BadInput(
            "there is no image, and not both `lang` and `handler` to build one from: "
            "write them into the stack file, or give --image"
        )
    spec.check()
    return spec
