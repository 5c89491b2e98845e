"""Building one function of a stack: its folder goes to the gateway, log lines and an image come back."""

from __future__ import annotations

from collections.abc import Iterable

from stoker_cli.progress import Progress
from stoker_sdk.archive import BuildSettings, pack
from stoker_sdk.client import ControlClient
from stoker_sdk.deployment import has_digest
from stoker_sdk.errors import StokerError, Unavailable
from stoker_sdk.messages import BuildLine
from stoker_sdk.paths import check_tree
from stoker_sdk.stack import Stack, StackFunction


def needs_build(function: StackFunction, image: str) -> bool:
    """Whether `deploy` builds first: there is source, and no image that says exactly which one it is."""
    return function.is_built_here and not image and not has_digest(function.image)


def build(
    client: ControlClient,
    stack: Stack,
    function: StackFunction,
    arguments: dict[str, str],
    progress: Progress,
) -> str:
    """Build a function and return its image. Unchanged sources give the same image, and build nothing.

    `arguments` are added to the function's build arguments. Raises `BadInput` for a bad handler folder,
    `StokerError` with the builder's message when the build fails.
    """
    folder = stack.handler_folder(function)
    check_tree(folder, f"{stack.file}: functions.{function.name}.handler")
    template = stack.folder / "template" / function.lang
    settings = BuildSettings(function.name, function.lang, {**function.build_args, **arguments})
    progress.step("building")
    with pack(settings, folder, template if template.is_dir() else None) as archive:
        return _followed(client.build(archive), progress)


def _followed(lines: Iterable[BuildLine], progress: Progress) -> str:
    for line in lines:
        if line.error:
            raise StokerError(line.error)
        if line.image:
            progress.log(f"{line.image}{' (unchanged)' if line.cached else ''}")
            return line.image
        progress.log(line.log)
    raise Unavailable("the build broke off before it had a result: try again, and look at the platform's log")
