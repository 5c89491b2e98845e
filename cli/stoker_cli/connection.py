"""From a command's flags to the stack that it means and a client that may talk to the gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoker_cli.options import Selection, Target
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadUsage
from stoker_sdk.gateway_address import choose_gateway, is_loopback

if TYPE_CHECKING:
    from stoker_sdk.client import ControlClient
    from stoker_sdk.http_client import Trust
    from stoker_sdk.stack import Stack

DEFAULT_STACK_FILES = ("stack.yaml", "stack.yml")


@contextmanager
def connected(
    target: Target, surroundings: Surroundings, stack: Stack | None = None, timeout: float = 60
) -> Iterator[ControlClient]:
    """A client for the gateway that the flags, the stack and the environment name, with its credentials."""
    from stoker_sdk.credentials import local_authorization

    gateway = gateway_of(target, surroundings, stack)
    stored = surroundings.credentials.find(gateway)
    if target.token and not stored.startswith("Basic "):
        stored = f"Bearer {target.token}"
    authorization = stored or local_authorization(gateway, surroundings.data_dir)
    with client_with(gateway, authorization, target, surroundings, timeout) as client:
        yield client


@contextmanager
def client_with(
    gateway: str, authorization: str, target: Target, surroundings: Surroundings, timeout: float = 60
) -> Iterator[ControlClient]:
    """A client with the credentials given; `target` says whose certificates it trusts."""
    from stoker_sdk.client import ControlClient
    from stoker_sdk.http_client import HttpClient

    trust, trace = _trust(target, gateway, surroundings), _trace(surroundings)
    client = ControlClient(HttpClient(gateway, authorization, trust, timeout, trace))
    try:
        yield client
    finally:
        client.close()


def gateway_of(target: Target, surroundings: Surroundings, stack: Stack | None = None) -> str:
    """The normalized address. Without a stack given, the one in the working folder has its say, as in
    faas-cli.
    """
    if stack is None and not target.gateway:
        stack = read_stack(target, surroundings)
    return choose_gateway(target.gateway, stack.gateway if stack else "", surroundings.environment)


def read_stack(target: Target, surroundings: Surroundings, selection: Selection | None = None) -> Stack | None:
    """The stack of the files that -f names, else of the one in the working folder, else None. Its warnings go to
    standard error.
    """
    default = default_stack_file(Path())
    names = target.stack_files or ((str(default),) if default else ())
    if not names:
        return None
    from stoker_sdk.deployment import with_prefix
    from stoker_sdk.stack import load_stacks

    substituted = selection.substituted if selection else True
    stack = load_stacks(names, surroundings.environment, substituted=substituted)
    if selection and selection.prefix:
        stack = with_prefix(stack, selection.prefix)
    for warning in stack.warnings if selection else ():
        click.echo(f"warning: {warning}", err=True)
    return stack


def required_stack(target: Target, surroundings: Surroundings, selection: Selection) -> Stack:
    """The stack, or a wrong usage when there is none."""
    stack = read_stack(target, surroundings, selection)
    if stack is None:
        raise BadUsage(
            "there is no stack.yml in this folder: name one with -f, or start one with `stoker new NAME --lang python3`"
        )
    return stack


def default_stack_file(folder: Path) -> Path | None:
    """`stack.yaml` if it is there, else `stack.yml` (contract section 9.1)."""
    return next((folder / name for name in DEFAULT_STACK_FILES if (folder / name).is_file()), None)


def _trace(surroundings: Surroundings) -> Callable[[str], None] | None:
    """Where requests are shown, when FAAS_DEBUG=1 or OPENFAAS_DUMP_HTTP=true ask for it (contract section 3.3)."""
    asked = (surroundings.environment.get(name, "").lower() for name in ("FAAS_DEBUG", "OPENFAAS_DUMP_HTTP"))
    return (lambda line: click.echo(line, err=True)) if any(value in ("1", "true") for value in asked) else None


def _trust(target: Target, gateway: str, surroundings: Surroundings) -> Trust:
    from stoker_sdk.http_client import Trust

    ca = target.ca
    if ca is None and gateway.startswith("https:") and is_loopback(gateway):
        # The platform on this machine made its own CA, and its folder is as trustworthy as its password file.
        local = surroundings.data_dir.ca_certificate
        ca = local if local.is_file() else None
    return Trust(ca, target.verify)
