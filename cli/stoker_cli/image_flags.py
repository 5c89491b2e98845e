"""The flags of `stoker serve` about images: who builds what is pushed, and where the images go."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stoker_builder.images.kinds import BUILDERS, BUILDKIT, LOCAL
from stoker_sdk.errors import BadUsage

if TYPE_CHECKING:
    from stoker_builder.images.settings import ImageSettings

_OPTIONS = (
    click.option(
        "--image-builder",
        type=click.Choice(BUILDERS),
        default=LOCAL,
        show_default=True,
        help="What builds pushes: this machine without containers, or BuildKit (the Docker Engine's, or a buildkitd).",
    ),
    click.option(
        "--image-prefix", default="", metavar="REGISTRY/PATH", help="Where the images of pushes go; nobody else's do."
    ),
    click.option("--buildkit", default="", metavar="ADDRESS", help="unix://PATH or tcp://HOST:PORT [BUILDKIT_HOST]."),
    click.option(
        "--buildkit-tls",
        type=click.Path(exists=True, file_okay=False),
        default=None,
        help="ca.pem, cert.pem and key.pem for it.",
    ),
    click.option(
        "--registry-config",
        type=click.Path(exists=True, dir_okay=False),
        default=None,
        help="Registry logins for pushes' images, as docker's config.json has them.",
    ),
)
_PREFIX = re.compile(
    r"(?!-)(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+:[0-9]{1,5}|localhost:[0-9]{1,5})"
    r"(/[a-z0-9]+([._-]+[a-z0-9]+)*)+",
    re.ASCII,
)
"""A registry, and at least one folder in it."""


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_image_options(flags: Mapping[str, Any], docker_host: str, environment: Mapping[str, str]) -> ImageSettings:
    """Raises `BadUsage` for flags that do not go together."""
    from stoker_builder.images.settings import ImageSettings

    builder, prefix = flags["image_builder"], flags["image_prefix"].rstrip("/")
    if builder == LOCAL:
        if prefix:
            raise BadUsage("--image-prefix is for images: add --image-builder docker, or buildkit")
        return ImageSettings()
    if not prefix:
        raise BadUsage(f"--image-builder {builder} needs --image-prefix REGISTRY/PATH: where the images go")
    if not _PREFIX.fullmatch(prefix):
        raise BadUsage(f"--image-prefix {prefix[:80]!r} is no place for images: write REGISTRY/PATH, as ghcr.io/me")
    address = flags["buildkit"] or environment.get("BUILDKIT_HOST", "") if builder == BUILDKIT else ""
    if builder == BUILDKIT and not address:
        raise BadUsage("--image-builder buildkit needs --buildkit ADDRESS, such as tcp://buildkitd:1234")
    return ImageSettings(
        builder=builder,
        prefix=prefix,
        docker_host=docker_host,
        buildkit=address,
        buildkit_tls=_path(flags["buildkit_tls"]),
        plain_registries=tuple(flags["plain_registry"]),
        docker_config=_path(flags["registry_config"]),
    )


def _path(name: str | None) -> str:
    return str(Path(name).absolute()) if name else ""
