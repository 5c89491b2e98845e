"""`stoker logs`: what a function printed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, json_option, target_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadInput, BadUsage
from stoker_sdk.units import parse_duration, parse_rfc3339

if TYPE_CHECKING:
    from stoker_sdk.messages import LogMessage


@click.command("logs", cls=Command)
@click.argument("name")
@target_options
@json_option
@click.option("--follow", is_flag=True, help="Wait for more lines, until Ctrl-C.")
@click.option("--tail/--no-tail", default=None, help="The same as --follow, by its faas-cli name.")
@click.option("--lines", type=int, default=-1, metavar="N", help="Only the last N lines. [default: all]")
@click.option("--since", default="", metavar="DURATION", help="Only lines younger than this, such as 5m or 2h30m.")
@click.option("--since-time", default="", metavar="TIME", help="Only lines from then on, such as 2026-01-31T12:00:00Z.")
@click.option("--instance", default="", metavar="ID", help="Only lines of this replica.")
@click.pass_obj
def logs(
    surroundings: Surroundings,
    target: Target,
    name: str,
    as_json: bool,
    follow: bool,
    tail: bool | None,
    lines: int,
    since: str,
    since_time: str,
    instance: str,
) -> None:
    """Show what a function printed. With --json, one JSON object per line.

    \b
    stoker logs greet --follow
    stoker logs greet --since 10m --lines 100
    """
    import msgspec

    from stoker_sdk.client import LogRequest

    request = LogRequest(
        name,
        target.namespace,
        instance,
        since_when(since, since_time, datetime.now(UTC)),
        lines,
        follow if tail is None else tail,
    )
    with connected(target, surroundings) as client:
        for message in client.logs(request):
            if instance and message.instance != instance:
                continue  # other gateways take no notice of the parameter
            click.echo(msgspec.json.encode(message) if as_json else _line(message))


def since_when(since: str, since_time: str, now: datetime) -> str:
    """The `since` parameter in RFC 3339, or an empty string. Raises `BadUsage` for both flags, `BadInput` for
    bad text.
    """
    if since and since_time:
        raise BadUsage("--since and --since-time exclude each other: give one of them")
    if since:
        moment = _ago(parse_duration(since, "--since"), now)
    elif since_time:
        moment = parse_rfc3339(since_time, "--since-time").astimezone(UTC)
    else:
        return ""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _ago(seconds: float, now: datetime) -> datetime:
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:
        raise BadInput("--since reaches back beyond the beginning of time: give a shorter one") from None


def _line(message: LogMessage) -> str:
    return f"{message.timestamp} {message.name} ({message.instance}) {message.text.rstrip()}"
