"""`stoker up`: build and deploy every function of a stack, once or after every change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stoker_cli.build_flags import BuildFlags, build_flags, builder_options, one_platform
from stoker_cli.command import Command
from stoker_cli.connection import connected, read_stack, required_stack
from stoker_cli.deploy_options import Rollout, rollout_options
from stoker_cli.options import Selection, Target, selection_options, target_options
from stoker_cli.surroundings import Surroundings

if TYPE_CHECKING:
    from stoker_cli.progress import Progress
    from stoker_sdk.client import ControlClient
    from stoker_sdk.stack import Stack, StackFunction


@click.command("up", cls=Command)
@target_options
@selection_options
@rollout_options
@build_flags
@click.option("--watch", is_flag=True, help="Stay, and do it again whenever a file of the functions changes.")
@click.option("--skip-push", is_flag=True, help="Do not push images that were built.")
@click.option("--skip-deploy", is_flag=True, help="Only build and push.")
@click.option("--publish", is_flag=True, help="Build all images with buildx and push them in one go.")
@builder_options
@click.option(
    "--platforms",
    "--platform",
    default="",
    metavar="LIST",
    help="Of images; several want --publish. [default: its own]",
)
@click.pass_obj
def up(
    surroundings: Surroundings,
    target: Target,
    selection: Selection,
    rollout: Rollout,
    flags: BuildFlags,
    watch: bool,
    skip_push: bool,
    skip_deploy: bool,
    publish: bool,
    builder: dict[str, Any],
    platforms: str,
) -> None:
    """Build and deploy the functions of a stack, wait until they are ready, and print their URLs.

    Functions with skip_build, or without a lang and a handler, are deployed with the image that the stack names.
    Images are pushed; everything is one for a gateway whose functions run on a cluster, and with --builder docker or
    buildkit. The first failure ends the command; functions that were deployed before stay. Unchanged
    sources build nothing. For the shortest way from saving to an answer, see `stoker dev`.

    \b
    stoker up
    stoker up -f stack.yml --filter 'web-*' --label team=blue
    stoker up --builder docker --platform linux/arm64
    stoker up --watch
    """
    flags = replace(flags, **builder, platform="" if publish else one_platform(platforms))
    rollout = replace(rollout, overrides=replace(rollout.overrides, namespace=target.namespace))

    def once() -> Stack:
        stack = required_stack(target, surroundings, selection)
        way = _Way(stack, flags, surroundings, not skip_push, platforms or "linux/amd64" if publish else "")
        _run(way, surroundings, target, selection, rollout, skip_deploy)
        return stack

    if watch:
        _watch(once, target, surroundings, selection)
    else:
        once()


def _run(
    way: _Way, surroundings: Surroundings, target: Target, selection: Selection, rollout: Rollout, skip_deploy: bool
) -> None:
    from stoker_cli.pipeline import deploy_functions, named, prepare
    from stoker_cli.progress import progress_of
    from stoker_sdk.stack import select

    functions = select(way.stack.functions, selection.filter, selection.regex)
    prepare(way.stack, functions, way.flags, surroundings.environment)
    with connected(target, surroundings, way.stack, rollout.timeout) as client:
        way.settle(client, functions)
        way.build_ahead(client, functions)
        if not skip_deploy:
            deploy_functions(client, way.stack, functions, rollout, way.images(client))
            return
        for function in functions:
            with named(function.name), progress_of(function.name, 2, way.flags.quiet) as progress:
                image = way.images(client)(function, progress)
            if image:
                click.echo(image)


def _watch(once: Callable[[], Stack], target: Target, surroundings: Surroundings, selection: Selection) -> None:
    from stoker_cli.watching import watch_stack
    from stoker_sdk.stack import Stack

    def read() -> tuple[Stack, list[Path]]:
        stack = read_stack(target, surroundings) or Stack("", Path())
        return stack, [Path(name) for name in target.stack_files if "://" not in name]

    watch_stack(once, read, selection)


class _Way:
    """From a function to its image: built by the gateway, or by BuildKit and pushed, or published."""

    def __init__(
        self, stack: Stack, flags: BuildFlags, surroundings: Surroundings, pushes: bool, platforms: str
    ) -> None:
        self.stack = stack
        self.flags = flags
        self._environment = surroundings.environment
        self._pushes = pushes
        self._platforms = platforms
        self._made: dict[str, str] = {}

    def settle(self, client: ControlClient, functions: tuple[StackFunction, ...]) -> None:
        """Choose the builder, now that the gateway can be asked."""
        from stoker_cli.builds import settled

        if not self._platforms:
            self.flags = settled(self.flags, client, self.stack, functions)

    def build_ahead(self, client: ControlClient, functions: tuple[StackFunction, ...]) -> None:
        """With --parallel, everything is built before the first is deployed."""
        if self.flags.parallel == 1 or self._platforms:
            return
        from stoker_cli.pipeline import build_functions

        built = [function for function in functions if function.is_built_here]
        images = build_functions(client, self.stack, built, self.flags, self._environment, push=self._pushes)
        self._made = {function.name: image for function, image in zip(built, images, strict=True)}

    def images(self, client: ControlClient) -> Callable[[StackFunction, Progress], str]:
        from stoker_cli.builds import is_image, make
        from stoker_cli.images import publish_image

        def image(function: StackFunction, progress: Progress) -> str:
            if not function.is_built_here:
                return ""
            if self._platforms:
                where = (self._platforms, (), self._environment, progress)
                return publish_image(self.stack, function, self.flags, *where)
            made = self._made.get(function.name) or make(
                client, self.stack, function, self.flags, self._environment, progress, push=self._pushes
            )
            # As the stack names it: the deploy pins it.
            return made.partition("@")[0] if is_image(self.stack, function, self.flags) else made

        return image
