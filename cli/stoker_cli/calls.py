"""`stoker calls`: look at async calls, cancel what waits or runs, and run dead ones again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import FILE, Target, json_option, target_options
from stoker_cli.output import print_json, print_table
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadUsage, StokerError

if TYPE_CHECKING:
    from stoker_sdk.client import ControlClient
    from stoker_sdk.messages import CallbackStatus, CallStatus

STATES = ("queued", "running", "retrying", "done", "dead", "cancelled")
PAGE = 1000
"""Calls that are asked for at once; as many as the gateway gives."""


@click.group("calls", context_settings={"help_option_names": ["-h", "--help"]})
def calls() -> None:
    """Async calls: what waits, what runs, and how it ended. What has ended is kept for a week.

    \b
    stoker calls list greet --state dead
    stoker calls show 6f1c0b6e
    stoker calls result 6f1c0b6e
    stoker calls replay 6f1c0b6e
    """


@calls.command("list", cls=Command)
@click.argument("function", required=False, default="")
@target_options
@json_option
@click.option("--state", type=click.Choice(STATES), help="Only calls in this state.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, help="The most calls. [default: 50]")
@click.option("--after", default="", metavar="CURSOR", help="Go on after this call; --json shows each one's `cursor`.")
@click.pass_obj
def list_calls(
    surroundings: Surroundings,
    target: Target,
    as_json: bool,
    function: str,
    state: str | None,
    limit: int,
    after: str,
) -> None:
    """List async calls, of all functions or of one: those that wait or run, then those that have ended.

    \b
    stoker calls list
    stoker calls list greet --state dead --limit 200
    stoker calls list --json
    """
    with connected(target, surroundings) as client:
        found = _first(_pages(client, function, target.namespace, state or "", after, min(limit, PAGE)), limit)
    if as_json:
        print_json(found)
    else:
        print_table(("Call", "Function", "State", "Status", "Attempts", "Created"), list(map(_row, found)))


calls.add_command(list_calls, "ls")


@calls.command("show", cls=Command)
@click.argument("id")
@target_options
@json_option
@click.pass_obj
def show(surroundings: Surroundings, target: Target, as_json: bool, id: str) -> None:
    """Show one async call: its state, times, attempts, and why it is dead.

    \b
    stoker calls show 6f1c0b6e
    stoker calls show 6f1c0b6e --json
    """
    with connected(target, surroundings) as client:
        status = client.call_status(id)
    if as_json:
        print_json(status)
    else:
        click.echo("\n".join(status_lines(status)))


@calls.command("result", cls=Command)
@click.argument("id")
@target_options
@click.option("-i", "--include", is_flag=True, help="First the status and the headers.")
@click.pass_obj
def result(surroundings: Surroundings, target: Target, id: str, include: bool) -> None:
    """Print what the function answered to an async call that has ended. It is kept where the function's `result` in
    stack.yml says so, or the call's header X-Stoker-Keep-Result.

    \b
    stoker calls result 6f1c0b6e
    stoker calls result 6f1c0b6e -i
    """
    with connected(target, surroundings) as client:
        found = client.call_result(id)
    if include:
        click.echo(f"Status: {found.status}")
        for name, value in found.headers.items():
            click.echo(f"{_line(name)}: {_line(value)}")
        click.echo()
    sys.stdout.buffer.write(found.body)
    sys.stdout.buffer.flush()
    if found.truncated:
        click.echo("the answer was longer: this is its beginning", err=True)


@calls.command("cancel", cls=Command)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@target_options
@click.pass_obj
def cancel(surroundings: Surroundings, target: Target, ids: tuple[str, ...]) -> None:
    """Cancel async calls that wait or run. One that runs is broken off; what it has done stays done.

    \b
    stoker calls cancel 6f1c0b6e
    """
    with connected(target, surroundings) as client:
        for id in ids:
            client.cancel_call(id)
            click.echo(f"{id}: cancelled")


@calls.command("replay", cls=Command)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@target_options
@click.option("--all", "function", default="", metavar="FUNCTION", help="All dead calls of this function.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Replace a header; may repeat.")
@click.option("--body", type=FILE, metavar="FILE", help="Send this file's content instead of the call's body.")
@click.pass_obj
def replay(
    surroundings: Surroundings,
    target: Target,
    ids: tuple[str, ...],
    function: str,
    headers: tuple[str, ...],
    body: Path | None,
) -> None:
    """Queue dead calls once more. Each gets a new id, which is printed; the dead call stays as it is.

    \b
    stoker calls replay 6f1c0b6e
    stoker calls replay 6f1c0b6e -H 'X-Mode: careful' --body fixed.json
    stoker calls replay --all greet
    """
    from stoker_cli.invoke import read_header

    if bool(ids) == bool(function):
        raise BadUsage("which calls? Give their ids, or a function with --all")
    changes = dict(map(read_header, headers))
    content = _content(body) if body else None
    with connected(target, surroundings) as client:
        for id in ids:
            new = client.replay_call(id, headers=changes, body=content)
            click.echo(f"{id}: queued as {new}")
        if function:
            _replay_all(client, function, target.namespace, changes, content)


@calls.command("purge", cls=Command)
@click.argument("function")
@target_options
@click.option("--running", is_flag=True, help="Those that run, too.")
@click.option(
    "--dead", is_flag=True, help="Forget dead calls and their requests instead; they cannot be replayed then."
)
@click.pass_obj
def purge(surroundings: Surroundings, target: Target, function: str, running: bool, dead: bool) -> None:
    """Cancel every async call of a function that waits for its first or next attempt, as of now.

    Each gets the outcome `cancelled`. What was cut short goes on when it is started again.

    \b
    stoker calls purge greet
    stoker calls purge greet --running -n staging
    stoker calls purge greet --dead
    """
    if running and dead:
        raise BadUsage("--dead forgets calls that have ended, --running cancels: choose one")
    states = ("dead",) if dead else ("queued", "running") if running else ("queued",)
    what = "forgotten" if dead else "cancelled"
    count = 0
    with connected(target, surroundings) as client:
        for state in states:
            for step in client.purge_calls(function, target.namespace, state):
                count += step.calls
                if step.after:
                    click.echo(f"{function}: {count} calls {what} so far", err=True)
    click.echo(f"{function}: {count} calls {what}")


def status_lines(status: CallStatus) -> list[str]:
    """One call for people."""
    fields = [
        ("Call", status.id),
        ("Function", f"{status.function}.{status.namespace}"),
        ("State", status.state),
        ("Status", str(status.status or "")),
        ("Reason", status.reason),
        ("Created", status.created_at),
        ("Started", status.started_at),
        ("Ended", status.ended_at),
        ("Replay of", status.replay_of),
        ("Result", f"kept until {status.result_until}" if status.result_until else ""),
        ("Callback", _callback(status.callback) if status.callback else ""),
    ]
    lines = [f"{name + ':':<10} {_line(text)}" for name, text in fields if text]
    for attempt in status.attempts:
        outcome = attempt.reason or (f"status {attempt.status}" if attempt.status else "no answer")
        times = f"{attempt.started_at} to {attempt.ended_at}" if attempt.ended_at else attempt.started_at
        lines.append(f"Attempt {attempt.number}: {times}: {_line(outcome)}")
    return [*lines, "Answer:", *map(_line, status.answer.splitlines())] if status.answer else lines


def _callback(status: CallbackStatus) -> str:
    """What became of it, on one line."""
    answer = f", status {status.status}" if status.status else ""
    why = f": {status.reason}" if status.reason else ""
    if status.state == "waiting":
        next = f", the next at {status.next_at}" if status.next_at else ""
        return f"waiting, {status.attempts} attempts{next}{why}"
    return f"{status.state} at {status.ended_at}, {status.attempts} attempts{answer}{why}"


def _line(text: str) -> str:
    """A stranger's text on one line of a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _row(status: CallStatus) -> tuple[str, ...]:
    attempts = str(len(status.attempts) or "")
    function = f"{status.function}.{status.namespace}"
    return status.id, function, status.state, str(status.status or ""), attempts, status.created_at


def _pages(
    client: ControlClient, function: str, namespace: str, state: str, after: str = "", limit: int = PAGE
) -> Iterator[CallStatus]:
    while page := client.calls(function, namespace, state=state, after=after, limit=limit):
        yield from page
        if not page[-1].cursor or page[-1].cursor == after:
            return
        after = page[-1].cursor


def _first(found: Iterator[CallStatus], count: int) -> list[CallStatus]:
    return [status for _, status in zip(range(count), found, strict=False)]


def _replay_all(
    client: ControlClient, function: str, namespace: str, headers: dict[str, str], body: bytes | None
) -> None:
    """Those that are dead now: calls that die again meanwhile are not for this run."""
    client.function(function, namespace)
    skipped = 0
    for step in client.replay_calls(function, namespace, headers=headers, body=body):
        skipped += step.skipped
        for old, new in step.replayed.items():
            click.echo(f"{old}: queued as {new}")
    if skipped:
        raise StokerError(f"{skipped} calls can never be run and stay dead: `stoker calls list --state dead` has why")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StokerError(f"{path}: {error.strerror}") from error
