"""The flags that many commands share, each family gathered into one value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

Function = Callable[..., Any]

ARCHITECTURES = ("x86_64", "arm64", "armhf")
"""Those that the store has images for (contract section 9.6)."""

FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Target:
    """Which gateway and namespace a command means, and how it trusts the gateway. Empty means not said.

    `stack_files` are paths and web addresses; `token` counts where no login is stored (contract section 3.1).
    """

    gateway: str = ""
    namespace: str = ""
    ca: Path | None = None
    verify: bool = True
    stack_files: tuple[str, ...] = ()
    token: str = ""


@dataclass(frozen=True)
class Selection:
    """Which functions of the stack a command means, and how the stack is read: with variables replaced, and with the
    images of what is built under another prefix.
    """

    filter: str = ""
    regex: str = ""
    substituted: bool = True
    prefix: str = ""


_STACK_FILE = click.option(
    "-f",
    "--yaml",
    "yaml_files",
    multiple=True,
    metavar="FILE|URL",
    help="The stack file, or its http(s) address; may be repeated. [default: stack.yaml or stack.yml]",
)
_GATEWAY = (
    click.option(
        "-g",
        "--gateway",
        default="",
        metavar="URL",
        help="The gateway. [default: the stack's, else $OPENFAAS_URL, else http://127.0.0.1:8080]",
    ),
    click.option("-n", "--namespace", default="", metavar="NAME", help="The namespace. [default: openfaas-fn]"),
    click.option("--ca", type=FILE, metavar="FILE", help="Trust the CA certificates in this file as well."),
    click.option("--tls-no-verify", is_flag=True, help="Accept any certificate: anybody can then read along."),
    click.option("-k", "--token", default="", metavar="TOKEN", help="A bearer token, where no login is stored."),
)
_SELECTION = (
    click.option("--filter", "filter_", default="", metavar="GLOB", help="Only functions that match, such as 'web-*'."),
    click.option("--regex", default="", metavar="REGEX", help="Only functions whose name has a match of this."),
    click.option(
        "--envsubst/--no-envsubst",
        default=True,
        help="Whether to replace ${VARIABLE} in the stack file. [default: yes]",
    ),
    click.option(
        "--prefix",
        default="",
        metavar="PREFIX",
        help="Registry and owner for images that are built, in place of the stack's, such as ghcr.io/me.",
    ),
)


def target_options(function: Function) -> Function:
    """Adds -f, -g, -n, --ca, --tls-no-verify and --token; the command gets them as `target`."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        target = Target(
            gateway=kwargs.pop("gateway"),
            namespace=kwargs.pop("namespace"),
            ca=kwargs.pop("ca"),
            verify=not kwargs.pop("tls_no_verify"),
            stack_files=kwargs.pop("yaml_files"),
            token=kwargs.pop("token"),
        )
        return function(*args, target=target, **kwargs)

    return _decorated(command, (_STACK_FILE, *_GATEWAY))


def selection_options(function: Function) -> Function:
    """Adds --filter, --regex, --envsubst and --prefix; the command gets them as `selection`."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        selection = Selection(*(kwargs.pop(name) for name in ("filter_", "regex", "envsubst", "prefix")))
        return function(*args, selection=selection, **kwargs)

    return _decorated(command, _SELECTION)


def stack_options(function: Function) -> Function:
    """Adds -f alone, for commands that talk to no gateway; the command gets a `target` with nothing else in it."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        return function(*args, target=Target(stack_files=kwargs.pop("yaml_files")), **kwargs)

    return _decorated(command, (_STACK_FILE,))


def json_option(function: Function) -> Function:
    """Adds --json; the command gets it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def _decorated(function: Function, options: tuple[Callable[[Function], Function], ...]) -> Function:
    for option in reversed(options):
        function = option(function)
    return function
