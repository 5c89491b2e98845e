"""The flags that say how functions are deployed, for `deploy`, `up` and `store deploy`."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from stoker_cli.options import Function
from stoker_sdk.errors import BadUsage
from stoker_sdk.rollout import Mode
from stoker_sdk.units import parse_duration

if TYPE_CHECKING:
    from stoker_sdk.deployment import Overrides


@dataclass(frozen=True)
class Rollout:
    """How to deploy: what is laid over the stack, what happens to a function that exists, how long to wait
    (seconds).

    `patience` 0 does not wait; `timeout` is that of one answer of the gateway.
    """

    overrides: Overrides
    mode: Mode
    patience: float
    timeout: float = 60
    build_arguments: dict[str, str] = field(default_factory=dict)
    force: bool = False
    """Also change functions that come from a git repository."""


_NAMES = (
    "env",
    "label",
    "annotation",
    "secret",
    "constraint",
    "fprocess",
    "cpu_limit",
    "memory_limit",
    "cpu_request",
    "memory_request",
    "readonly",
    "unpinned",
    "update",
    "replace",
    "force",
    "no_wait",
    "wait_timeout",
    "timeout",
)
_MANY: dict[str, Any] = {"multiple": True, "metavar": "NAME=VALUE"}
_OPTIONS = (
    click.option("-e", "--env", **_MANY, help="An environment variable; may be repeated."),
    click.option("-l", "--label", **_MANY, help="A label; may be repeated."),
    click.option("--annotation", **_MANY, help="An annotation; may be repeated."),
    click.option("--secret", multiple=True, metavar="NAME", help="A secret to give it; may be repeated."),
    click.option("--constraint", multiple=True, metavar="KEY=VALUE", help="Where it may run; may be repeated."),
    click.option("--fprocess", default="", metavar="COMMAND", help="The process that the watchdog runs."),
    click.option("--cpu-limit", default="", metavar="QUANTITY", help="The most CPU it may use, such as 500m."),
    click.option("--memory-limit", default="", metavar="QUANTITY", help="The most memory it may use, such as 128Mi."),
    click.option("--cpu-request", default="", metavar="QUANTITY", help="The CPU to keep free for it."),
    click.option("--memory-request", default="", metavar="QUANTITY", help="The memory to keep free for it."),
    click.option("--readonly", is_flag=True, help="Give it a file system that it cannot write to."),
    click.option("--unpinned", is_flag=True, help="Run whatever its tag means, should the registry not answer."),
    click.option("--update/--no-update", default=None, help="Change functions that exist already. [default: yes]"),
    click.option("--replace", is_flag=True, help="Remove functions that exist already, then deploy them."),
    click.option("--force", is_flag=True, help="Also change functions that come from a git repository."),
    click.option("--no-wait", is_flag=True, help="Do not wait until the functions are ready."),
    click.option("--timeout", default="60s", metavar="DURATION", help="For one answer of the gateway. [default: 60s]"),
    click.option("--wait-timeout", default="3m", metavar="DURATION", help="The longest wait. [default: 3m]"),
)
_BUILD_ARGUMENT = click.option("-b", "--build-arg", **_MANY, help="A build argument; may be repeated.")


def deploy_options(function: Function) -> Function:
    """Adds every flag above, and --build-arg; the command gets them as `rollout`."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        arguments = pairs(kwargs.pop("build_arg"), "--build-arg")
        rollout = replace(kwargs.pop("rollout"), build_arguments=arguments)
        return function(*args, rollout=rollout, **kwargs)

    return _BUILD_ARGUMENT(rollout_options(command))


def rollout_options(function: Function) -> Function:
    """Adds every flag above; the command gets them as `rollout`."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        flags = {name: kwargs.pop(name) for name in _NAMES}
        return function(*args, rollout=_rollout(flags), **kwargs)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def pairs(texts: tuple[str, ...], flag: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a map. Raises `BadUsage` for one without `=` or without a name."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadUsage(f"{flag} {text[:80]!r} is not NAME=VALUE")
        found[name] = value
    return found


def deploy_mode(update: bool | None, replace: bool) -> Mode:
    """Raises `BadUsage` when both are asked for: faas-cli refuses that too."""
    if update and replace:
        raise BadUsage("--update and --replace exclude each other: give one of them")
    if replace:
        return Mode.REPLACE
    return Mode.CREATE if update is False else Mode.UPDATE


def _rollout(flags: dict[str, Any]) -> Rollout:
    from stoker_sdk.deployment import Overrides
    from stoker_sdk.function import ANNOTATION_PREFIX, Resources

    unpinned = {f"{ANNOTATION_PREFIX}unpinned": "true"} if flags["unpinned"] else {}
    overrides = Overrides(
        fprocess=flags["fprocess"],
        environment=pairs(flags["env"], "--env"),
        labels=pairs(flags["label"], "--label"),
        annotations=pairs(flags["annotation"], "--annotation") | unpinned,
        secrets=flags["secret"],
        constraints=flags["constraint"],
        limits=Resources(memory=flags["memory_limit"], cpu=flags["cpu_limit"]),
        requests=Resources(memory=flags["memory_request"], cpu=flags["cpu_request"]),
        readonly=flags["readonly"],
    )
    patience = 0 if flags["no_wait"] else parse_duration(flags["wait_timeout"], "--wait-timeout")
    mode = deploy_mode(flags["update"], flags["replace"])
    timeout = parse_duration(flags["timeout"], "--timeout")
    if timeout <= 0:
        raise BadUsage("--timeout must be more than nothing")
    return Rollout(overrides, mode, patience, timeout, force=flags["force"])
