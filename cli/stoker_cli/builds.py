"""Building one function of a stack, by the builder that the flags name or the gateway asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from stoker_builder.images.builder import Order
from stoker_builder.images.kinds import DOCKER, IMAGE_BUILDERS, LOCAL
from stoker_builder.images.local import LocalBuilder
from stoker_builder.request import build_request, needs_docker, template_of
from stoker_cli.build_flags import BuildFlags
from stoker_cli.progress import Progress
from stoker_sdk.client import ControlClient
from stoker_sdk.deployment import has_digest
from stoker_sdk.stack import Stack, StackFunction

CLUSTER = "kubernetes"
"""`orchestration` of a gateway whose functions are pods."""


def needs_build(function: StackFunction, image: str) -> bool:
    """Whether `deploy` builds first: there is source, and no image that says exactly which one it is."""
    return function.is_built_here and not image and not has_digest(function.image)


def make(
    client: ControlClient,
    stack: Stack,
    function: StackFunction,
    flags: BuildFlags,
    environment: Mapping[str, str],
    progress: Progress,
    *,
    push: bool = False,
) -> str:
    """Build a function where it can be built, and return its image, which is pushed if `push` and if it is one.

    Raises `BadInput` for a bad handler folder, `StokerError` with the builder's message when the build fails.
    """
    if is_image(stack, function, flags):
        from stoker_cli.images import image_builder, image_order

        order = image_order(stack, function, flags, environment)
        return image_builder(flags, environment).build(order, progress, push=push).image
    progress.step("building")
    order = Order(build_request(stack, function, flags.arguments, flags.options))
    return LocalBuilder(client.build).build(order, progress).image


def is_image(stack: Stack, function: StackFunction, flags: BuildFlags) -> bool:
    """Whether BuildKit builds the function, so that there is an image to push."""
    asked = flags.builder in IMAGE_BUILDERS
    return function.is_built_here and (asked or needs_docker(function, template_of(stack, function)))


def settled(flags: BuildFlags, client: ControlClient, stack: Stack, functions: Sequence[StackFunction]) -> BuildFlags:
    """The flags with a builder: unless they name one, Docker where functions are pods, which are made of images.

    The gateway is only asked where it makes a difference.
    """
    if flags.builder or all(is_image(stack, function, flags) for function in functions if function.is_built_here):
        return flags
    provider = client.info().provider
    return replace(flags, builder=DOCKER if provider and provider.orchestration == CLUSTER else LOCAL)
