"""`stoker ready`: wait until the gateway, or a function, can be called."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, target_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import NotFound, StokerError, Unavailable
from stoker_sdk.units import parse_duration


@click.command("ready", cls=Command)
@click.argument("name", required=False)
@target_options
@click.option("--attempts", type=click.IntRange(1), default=60, metavar="N", help="How often to look. [default: 60]")
@click.option("--interval", default="1s", metavar="DURATION", help="Between two looks. [default: 1s]")
@click.option("--quiet", is_flag=True, help="Print nothing while waiting.")
@click.pass_obj
def ready(
    surroundings: Surroundings, target: Target, name: str | None, attempts: int, interval: str, quiet: bool
) -> None:
    """Wait until the gateway answers, or until a function has a replica that is ready.

    \b
    stoker ready && stoker up
    stoker ready greet --attempts 120 --interval 500ms
    """
    pause = parse_duration(interval, "--interval")
    with connected(target, surroundings, timeout=5) as client:
        subject = f"function {name!r}" if name else client.gateway

        def look() -> bool:
            if not name:
                return client.is_healthy()
            return client.function(name, target.namespace, usage=True).available_replicas > 0

        for attempt in range(1, attempts + 1):
            reason = _not_ready(look)
            if not reason:
                click.echo(f"{subject} is ready")
                return
            if not quiet:
                click.echo(f"[{attempt}/{attempts}] {subject} is not ready: {reason}", err=True)
            if attempt < attempts:
                time.sleep(pause)
    raise StokerError(f"{subject} was not ready after {attempts} {'look' if attempts == 1 else 'looks'}")


def _not_ready(look: Callable[[], bool]) -> str:
    """Why it is not ready yet, or an empty text. What waiting cannot mend, such as wrong credentials, is raised."""
    try:
        return "" if look() else "no replica is available"
    except (Unavailable, NotFound) as error:
        return str(error).splitlines()[0]
