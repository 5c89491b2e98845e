"""The flags of `stoker serve` about builds: what one may use of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from stoker_sdk.errors import BadInput, BadUsage

if TYPE_CHECKING:
    from stoker_cli.server.builds import BuildOptions

_OPTIONS = (
    click.option(
        "--build-ahead", is_flag=True, help="Keep a builder started always, not only after builds, for 25 MB."
    ),
    click.option("--build-time", default="30m", show_default=True, help="How long a build may take."),
    click.option("--build-disk", default="16Gi", show_default=True, help="What a build may write."),
    click.option(
        "--build-files", type=click.IntRange(1000), default=500_000, show_default=True, help="In how many files."
    ),
    click.option("--build-memory", default="4Gi", show_default=True, help="Of all processes of a build together."),
    click.option(
        "--build-processes",
        type=click.IntRange(16),
        default=512,
        show_default=True,
        help="Processes and threads of a build at once.",
    ),
    click.option(
        "--build-cache", default="20Gi", show_default=True, help="What package caches keep between builds at most."
    ),
    click.option(
        "--build-reach",
        multiple=True,
        metavar="HOST:PORT",
        help="An address of this machine that installers of pushed functions may reach, such as an index.",
    ),
)


def builder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_builder_options(flags: Mapping[str, Any]) -> BuildOptions:
    """Raises `BadUsage`."""
    from stoker_builder.bounds import Bounds
    from stoker_builder.way_out import read_target
    from stoker_cli.server.builds import BuildOptions
    from stoker_sdk.units import parse_duration, parse_quantity

    def size(name: str) -> int:
        return int(parse_quantity(flags[name], f"--{name.replace('_', '-')}"))

    try:
        bounds = Bounds(
            size("build_disk"),
            flags["build_files"],
            size("build_memory"),
            flags["build_processes"],
            size("build_cache"),
        )
        reach = flags["build_reach"]
        for address in reach:
            read_target(address)
        seconds = parse_duration(flags["build_time"], "--build-time")
        return BuildOptions(bounds, seconds, ahead=flags["build_ahead"], reach=reach)
    except BadInput as error:
        raise BadUsage(str(error)) from error
