"""Building one function of a stack: its folder goes to the gateway, log lines and an image come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from stoker_builder.request import build_request, needs_docker, template_of
from stoker_cli.build_flags import DOCKER, LOCAL, BuildFlags
from stoker_cli.progress import Progress
from stoker_sdk.client import ControlClient
from stoker_sdk.deployment import has_digest
from stoker_sdk.errors import StokerError, Unavailable
from stoker_sdk.messages import BuildLine
from stoker_sdk.stack import Stack, StackFunction

CLUSTER = "kubernetes"
"""`orchestration` of a gateway whose functions are pods."""


def needs_build(function: StackFunction, image: str) -> bool:
    """Whether `deploy` builds first: there is source, and no image that says exactly which one it is."""
    return function.is_built_here and not image and not has_digest(function.image)


def build(
    client: ControlClient,
    stack: Stack,
    function: StackFunction,
    arguments: dict[str, str],
    progress: Progress,
    options: tuple[str, ...] = (),
) -> str:
    """Build a function by the gateway and return its image. Unchanged sources give the same image, and build
    nothing.

    `arguments` and `options` are added to the function's own. Raises `BadInput` for a bad handler folder,
    `StokerError` with the builder's message when the build fails.
    """
    request = build_request(stack, function, arguments, options)
    progress.step("building")
    if request.replaced:
        progress.log(
            f"the gateway's own template {request.replaced.name} takes the place of ./template/{function.lang}"
        )
    with request.packed() as archive:
        return _followed(client.build(archive), progress)


def make(
    client: ControlClient,
    stack: Stack,
    function: StackFunction,
    flags: BuildFlags,
    environment: Mapping[str, str],
    progress: Progress,
) -> str:
    """Build a function where it can be built, and return its image: by the gateway, or by Docker here."""
    if is_image(stack, function, flags):
        from stoker_cli.images import build_image

        return build_image(stack, function, flags, environment, progress)
    return build(client, stack, function, flags.arguments, progress, flags.options)


def is_image(stack: Stack, function: StackFunction, flags: BuildFlags) -> bool:
    """Whether Docker builds the function, so that there is an image to push."""
    return function.is_built_here and (flags.builder == DOCKER or needs_docker(function, template_of(stack, function)))


def settled(flags: BuildFlags, client: ControlClient, stack: Stack, functions: Sequence[StackFunction]) -> BuildFlags:
    """The flags with a builder: unless they name one, Docker where functions are pods, which are made of images.

    The gateway is only asked where it makes a difference.
    """
    if flags.builder or all(is_image(stack, function, flags) for function in functions if function.is_built_here):
        return flags
    provider = client.info().provider
    return replace(flags, builder=DOCKER if provider and provider.orchestration == CLUSTER else LOCAL)


def _followed(lines: Iterable[BuildLine], progress: Progress) -> str:
    for line in lines:
        if line.error:
            raise StokerError(line.error)
        if line.image:
            progress.log(f"{line.image}{' (unchanged)' if line.cached else ''}")
            return line.image
        progress.log(line.log)
    raise Unavailable("the build broke off before it had a result: try again, and look at the platform's log")
