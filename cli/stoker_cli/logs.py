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


OUTPUTS = ("plain", "keyvalue", "json")


@click.command("logs", cls=Command)
@click.argument("name")
@target_options
@json_option
@click.option("--follow", is_flag=True, help="Wait for more lines, until Ctrl-C.")
@click.option("--tail/--no-tail", default=None, help="The same as --follow, by its faas-cli name.")
@click.option("--lines", type=int, default=-1, metavar="N", help="Only the last N lines. [default: all]")
@click.option("--since", default="", metavar="DURATION", help="Only lines younger than this, such as 5m or 2h30m.")
@click.option("--since-time", default="", metavar="TIME", help="Only lines from then on, such as 2026-01-31T12:00:00Z.")
@click.option("--instance", "instance_flag", default="", metavar="ID", help="Only lines of this replica.")
@click.option(
    "--name/--no-name", "shows_name", default=True, help="Whether to print the function's name. [default: yes]"
)
@click.option(
    "-o", "--output", type=click.Choice(OUTPUTS), default="plain", help="The form of a line. [default: plain]"
)
@click.option(
    "--time-format", default="", metavar="FORMAT", help="As for strftime, such as %H:%M:%S. [default: RFC 3339]"
)
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
    instance_flag: str,
    shows_name: bool,
    output: str,
    time_format: str,
) -> None:
    """Show what a function printed. With --json, one JSON object per line.

    \b
    stoker logs greet --follow
    stoker logs greet --since 10m --lines 100
    stoker logs greet --output keyvalue --time-format %H:%M:%S
    """
    import msgspec

    from stoker_sdk.client import LogRequest

    if lines < -1:
        raise BadUsage(f"--lines {lines} is less than nothing: give a number of lines, or -1 for all")

    request = LogRequest(
        name,
        target.namespace,
        instance_flag,
        since_when(since, since_time, datetime.now(UTC)),
        lines,
        follow if tail is None else tail,
    )
    with connected(target, surroundings) as client:
        for message in client.logs(request):
            if instance_flag and message.instance != instance_flag:
                continue  # other gateways take no notice of the parameter
            is_json = as_json or output == "json"
            line = "" if is_json else log_line(message, output, shows_name, time_format)
            click.echo(msgspec.json.encode(message) if is_json else line)


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


def log_line(message: LogMessage, output: str = "plain", shows_name: bool = True, time_format: str = "") -> str:
    """One line for people, or as `key="value"` pairs for programs that read those."""
    time, text = _time(message.timestamp, time_format), message.text.rstrip()
    if output == "keyvalue":
        pairs = {"timestamp": time, "name": message.name if shows_name else "", "instance": message.instance}
        return " ".join(f'{key}="{_quoted(value)}"' for key, value in {**pairs, "text": text}.items() if value)
    return f"{time} {message.name} ({message.instance}) {text}" if shows_name else f"{time} {text}"


def _time(timestamp: str, time_format: str) -> str:
    if not time_format:
        return timestamp
    try:
        return parse_rfc3339(timestamp).strftime(time_format)
    except (BadInput, ValueError):
        return timestamp


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
