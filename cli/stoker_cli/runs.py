"""`stoker runs`: what pushes started, how it went, and its log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, json_option, target_options
from stoker_cli.output import print_json, print_table
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadUsage, StokerError

if TYPE_CHECKING:
    from stoker_sdk.runs import FunctionResult, Run, RunLine

STATES = ("queued", "running", "superseded", "succeeded", "failed", "cancelled")


@click.group("runs", context_settings={"help_option_names": ["-h", "--help"]})
def runs() -> None:
    """Runs: each push that is to go live is one. They and their logs are kept for 30 days.

    \b
    stoker runs list --repository me/greet
    stoker runs logs 12 --follow
    stoker runs retry 12
    """


@runs.command("list", cls=Command)
@target_options
@json_option
@click.option("--repository", default="", metavar="OWNER[/NAME]", help="Only runs of this one.")
@click.option("--state", type=click.Choice(STATES), help="Only runs in this state.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, help="The most runs. [default: 50]")
@click.pass_obj
def list_runs(
    surroundings: Surroundings, target: Target, as_json: bool, repository: str, state: str | None, limit: int
) -> None:
    """List runs, the newest first.

    \b
    stoker runs list
    stoker runs list --repository me/greet --state failed
    """
    owner, _, name = repository.partition("/")
    with connected(target, surroundings) as client:
        found = client.runs.list_runs(owner=owner, repository=name, state=state or "", limit=limit)
    if as_json:
        print_json(found)
    else:
        print_table(("Run", "Repository", "Branch", "Commit", "State", "Created", "Reason"), list(map(_row, found)))


runs.add_command(list_runs, "ls")


@runs.command("show", cls=Command)
@click.argument("id", type=click.IntRange(1))
@target_options
@json_option
@click.pass_obj
def show(surroundings: Surroundings, target: Target, as_json: bool, id: int) -> None:
    """Show one run: its commit, its times, and what became of each function.

    \b
    stoker runs show 12
    """
    with connected(target, surroundings) as client:
        run = client.runs.show(id)
    if as_json:
        print_json(run)
    else:
        click.echo("\n".join(run_lines(run)))


@runs.command("logs", cls=Command)
@click.argument("id", type=click.IntRange(1))
@target_options
@click.option("--follow", is_flag=True, help="Go on until the run has ended; exit code 1 if it has not succeeded.")
@click.pass_obj
def logs(surroundings: Surroundings, target: Target, id: int, follow: bool) -> None:
    """Print a run's log: checkout, builds, tests, deploys.

    \b
    stoker runs logs 12
    stoker runs logs 12 --follow
    """
    with connected(target, surroundings) as client:
        _print(client.runs.log(id, follow=follow))
        run = client.runs.show(id) if follow else None
    if run is not None and run.state != "succeeded":
        raise StokerError(f"run {id} {run.state}: {run.reason}")


@runs.command("retry", cls=Command)
@click.argument("id", type=click.IntRange(1))
@target_options
@click.option("--follow", is_flag=True, help="Print the new run's log until it has ended.")
@click.pass_obj
def retry(surroundings: Surroundings, target: Target, id: int, follow: bool) -> None:
    """Run the same commit again. It goes live only if its branch is still there.

    \b
    stoker runs retry 12 --follow
    """
    with connected(target, surroundings) as client:
        run = client.runs.retry(id)
        click.echo(f"run {run.id}: {run.title}")
        if follow:
            _print(client.runs.log(run.id, follow=True))
            run = client.runs.show(run.id)
    if follow and run.state != "succeeded":
        raise StokerError(f"run {run.id} {run.state}: {run.reason}")


@runs.command("cancel", cls=Command)
@click.argument("ids", nargs=-1, required=True, type=click.IntRange(1), metavar="ID...")
@target_options
@click.pass_obj
def cancel(surroundings: Surroundings, target: Target, ids: tuple[int, ...]) -> None:
    """Cancel runs that wait or go. Functions that are live already stay.

    \b
    stoker runs cancel 12
    """
    with connected(target, surroundings) as client:
        for id in ids:
            click.echo(f"run {id}: {client.runs.cancel(id).state}")


def split_repository(text: str) -> tuple[str, str]:
    """`OWNER/NAME`. Raises `BadUsage`."""
    owner, slash, name = text.partition("/")
    if not (slash and owner and name) or "/" in name:
        raise BadUsage(f"{text[:80]!r} is not a repository: write OWNER/NAME")
    return owner, name


def run_lines(run: Run) -> list[str]:
    """One run as a person reads it."""
    push = run.push
    fields = [
        ("Run", str(run.id)),
        ("State", run.state + (f": {run.reason}" if run.reason else "")),
        ("Repository", f"{push.owner}/{push.repository}, {push.forge}"),
        ("Branch", push.branch),
        ("Commit", f"{push.sha} {push.subject}".strip()),
        ("By", push.by),
        ("Created", run.created_at),
        ("Started", run.started_at),
        ("Ended", run.ended_at),
        ("Attempt", str(run.attempt) if run.attempt > 1 else ""),
        ("Retry of", str(run.retry_of or "")),
        ("Stages", _seconds(run.seconds)),
    ]
    return [f"{name + ':':<12}{text}" for name, text in fields if text] + list(_function_lines(run.functions))


def _function_lines(functions: Iterable[FunctionResult]) -> Iterable[str]:
    for each in functions:
        yield f"  {each.name}: {each.state}" + (f": {each.reason}" if each.reason else "")
        for text in (each.url, each.image, _seconds(each.seconds)):
            if text:
                yield f"    {text}"


def _seconds(seconds: dict[str, float]) -> str:
    return ", ".join(f"{stage} {took:.2f} s" for stage, took in seconds.items())


def _row(run: Run) -> tuple[str, ...]:
    push = run.push
    where = f"{push.owner}/{push.repository}"
    return (str(run.id), where, push.branch, push.sha[:7], run.state, run.created_at, run.reason[:80])


def _print(lines: Iterable[RunLine]) -> None:
    for line in lines:
        click.echo(f"[{line.function}] {line.text}" if line.function else line.text)
