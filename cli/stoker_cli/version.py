"""`stoker version`: the versions of this command and of the gateway."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, json_option, target_options
from stoker_cli.output import print_json
from stoker_cli.surroundings import Surroundings
from stoker_sdk import __version__
from stoker_sdk.errors import StokerError

if TYPE_CHECKING:
    from stoker_sdk.messages import GatewayInfo

_PATIENCE = 5.0
"""Seconds for the gateway to answer (contract section 3.1): a version is asked for when something is wrong.
"""


@click.command("version", cls=Command)
@target_options
@json_option
@click.option("--short-version", is_flag=True, help="Print the version of this command only, as one word.")
@click.option("--client-only", is_flag=True, help="Do not ask the gateway.")
@click.pass_obj
def version(surroundings: Surroundings, target: Target, as_json: bool, short_version: bool, client_only: bool) -> None:
    """Show the versions of this command and, when it can be reached, of the gateway.

    \b
    stoker version
    stoker version --short-version
    stoker version --client-only --json
    """
    if short_version:
        click.echo(__version__)
        return
    cli = f"CLI:\n version:        {__version__}\n python:         {platform.python_version()}"
    if client_only:
        if as_json:
            print_json({"cli": _cli()})
        else:
            click.echo(cli)
        return
    address, info, failure = _asked(target, surroundings)
    if as_json:
        print_json(_record(address, info, failure))
        return
    click.echo(f"{cli}\n")
    click.echo(_gateway_text(address, info, failure))


def _asked(target: Target, surroundings: Surroundings) -> tuple[str, GatewayInfo | None, str]:
    """The gateway's address and answer, or why there is none. A gateway that is down is no failure of this
    command.
    """
    try:
        with connected(target, surroundings, timeout=_PATIENCE) as client:
            address = client.gateway
            try:
                return address, client.info(), ""
            except StokerError as error:
                return address, None, str(error)
    except StokerError as error:
        return target.gateway, None, str(error)


def _record(address: str, info: GatewayInfo | None, failure: str) -> dict[str, Any]:
    gateway = {"uri": address, "error": failure} if info is None else {"uri": address, "info": info}
    return {"cli": _cli(), "gateway": gateway}


def _cli() -> dict[str, str]:
    return {"version": __version__, "python": platform.python_version()}


def _gateway_text(address: str, info: GatewayInfo | None, failure: str) -> str:
    if info is None:
        return f"Gateway:\n uri:            {address}\n {failure}"
    release = info.version.release if info.version else ""
    lines = ["Gateway:", f" uri:            {address}", f" version:        {release}"]
    if info.provider:
        provider = info.provider
        lines += [
            "",
            "Provider:",
            f" name:           {provider.provider}",
            f" orchestration:  {provider.orchestration}",
        ]
        lines += [f" version:        {provider.version.release}"] if provider.version else []
    return "\n".join(lines)
