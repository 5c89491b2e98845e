"""The flags that say how functions are built, for `build`, `up` and `publish`."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any

import click

from stoker_builder.images.kinds import BUILDERS
from stoker_cli.options import Function
from stoker_sdk.errors import BadUsage

PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?")
TAGS = ("latest", "default", "sha", "branch", "describe", "digest")


@dataclass(frozen=True)
class BuildFlags:
    """How to build. `arguments` and `options` are added to those of the stack; `tag` is one of `TAGS`; `builder` is
    one of `kinds.BUILDERS`, or empty where it has not been settled (`builds.settled`). `buildkit` and what
    follows are for a buildkitd (`stoker_builder.images.buildkit.Daemon`, and `Order.cache`).
    """

    arguments: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    no_cache: bool = False
    squash: bool = False
    pull: bool = False
    tag: str = "latest"
    parallel: int = 1
    quiet: bool = False
    pulls_templates: bool = True
    builder: str = ""
    platform: str = ""
    buildkit: str = ""
    buildkit_tls: str = ""
    plain_registries: tuple[str, ...] = ()
    cache: str = ""


def tag_option(function: Function) -> Function:
    """Adds --tag; the command gets it as `tag`."""
    return click.option(
        "--tag",
        type=click.Choice(TAGS),
        default="latest",
        help="What to add to the image's tag: from git (sha, branch, describe) or from the handler (digest).",
    )(function)


_BUILDER_OPTIONS = (
    click.option(
        "--builder",
        type=click.Choice(BUILDERS),
        default=None,
        help="docker, buildkit: images. local: by the gateway, what it can. [default: docker for a cluster]",
    ),
    click.option("--buildkit", default="", metavar="ADDRESS", help="unix://PATH or tcp://HOST:PORT [BUILDKIT_HOST]."),
    click.option(
        "--buildkit-tls",
        type=click.Path(exists=True, file_okay=False),
        default=None,
        metavar="FOLDER",
        help="ca.pem, cert.pem and key.pem for it.",
    ),
    click.option(
        "--plain-registry", multiple=True, metavar="HOST[:PORT]", help="Push there without TLS (buildkit; loopback is)."
    ),
    click.option("--cache", default="", metavar="IMAGE", help="Keep the steps of builds in a registry (buildkit)."),
)


def builder_options(function: Function) -> Function:
    """Adds --builder and what a buildkitd needs; the command gets them as `builder`, a part of `BuildFlags`."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        builder = {name: kwargs.pop(name) or "" for name in ("builder", "buildkit", "buildkit_tls", "cache")}
        return function(*args, builder=builder | {"plain_registries": kwargs.pop("plain_registry")}, **kwargs)

    decorated: Function = command
    for option in reversed(_BUILDER_OPTIONS):
        decorated = option(decorated)
    return decorated


def one_platform(text: str) -> str:
    """The value of --platform for an image that is kept here. Raises `BadUsage`."""
    if text and not PLATFORM.fullmatch(text):
        several = "several at once are for `stoker publish`" if "," in text else "write one such as linux/arm64"
        raise BadUsage(f"--platform {text[:80]!r} is no platform: {several}")
    return text


_NAMES = ("build_arg", "build_option", "build_label", "no_cache", "squash", "pull", "tag", "parallel", "quiet")
_OPTIONS = (
    click.option("-b", "--build-arg", multiple=True, metavar="NAME=VALUE", help="A build argument; may be repeated."),
    click.option("-o", "--build-option", multiple=True, metavar="NAME", help="A build option of the template."),
    click.option("--build-label", multiple=True, metavar="NAME=VALUE", help="A label of the image (Docker builds)."),
    click.option("--no-cache", is_flag=True, help="Let Docker build every step anew."),
    click.option("--squash", is_flag=True, help="Let Docker make one layer of the new ones (needs its experiments)."),
    click.option("--pull", is_flag=True, help="Let Docker fetch newer base images."),
    tag_option,
    click.option(
        "--parallel", type=click.IntRange(1, 32), default=1, metavar="N", help="Build so many at a time. [default: 1]"
    ),
    click.option("--quiet", is_flag=True, help="Show no log of a build that succeeds."),
    click.option("--disable-stack-pull", is_flag=True, help="Do not pull the templates that the stack names."),
)


def build_flags(function: Function) -> Function:
    """Adds every flag above; the command gets them as `flags`."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        from stoker_cli.deploy_options import pairs

        given = {name: kwargs.pop(name) for name in _NAMES}
        flags = BuildFlags(
            arguments=pairs(given["build_arg"], "--build-arg"),
            options=given["build_option"],
            labels=pairs(given["build_label"], "--build-label"),
            no_cache=given["no_cache"],
            squash=given["squash"],
            pull=given["pull"],
            tag=given["tag"],
            parallel=given["parallel"],
            quiet=given["quiet"],
            pulls_templates=not kwargs.pop("disable_stack_pull"),
        )
        return function(*args, flags=flags, **kwargs)

    decorated: Function = command
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
