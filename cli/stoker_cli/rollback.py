"""`stoker rollback`: put an earlier revision of a function live again."""

from __future__ import annotations

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, target_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.units import parse_duration


@click.command("rollback", cls=Command)
@click.argument("name")
@click.argument("revision", type=click.IntRange(min=1), required=False)
@target_options
@click.option("--no-wait", is_flag=True, help="Do not wait until it is ready.")
@click.option("--wait-timeout", default="3m", metavar="DURATION", help="The longest wait. [default: 3m]")
@click.pass_obj
def rollback(
    surroundings: Surroundings,
    target: Target,
    name: str,
    revision: int | None,
    no_wait: bool,
    wait_timeout: str,
) -> None:
    """Put an earlier revision of a function live again: its image by digest, environment, limits and all else.

    Nothing is built and no call is lost. It becomes a new revision, so that a second rollback undoes the first.
    Without REVISION it is the newest other version that did not fail; `stoker revisions` shows which there are.

    \b
    stoker rollback greet
    stoker rollback greet 3
    """
    from stoker_cli.managed import warn_of_drift
    from stoker_cli.pipeline import named
    from stoker_cli.progress import progress_of
    from stoker_sdk.function import FunctionSpec
    from stoker_sdk.rollout import wait_until_ready

    patience = parse_duration(wait_timeout, "--wait-timeout")
    with connected(target, surroundings) as client:
        warn_of_drift(client, name, target.namespace)
        done = client.rollback(name, revision or 0, target.namespace)
        if not no_wait:
            with named(name), progress_of(name, steps=1) as progress:
                spec = FunctionSpec(name, namespace=target.namespace)
                wait_until_ready(client, spec, done.revision, patience, progress)
    content = f", with the content of revision {done.rollback_to}" if done.rollback_to != done.revision else ""
    click.echo(f"{name}: revision {done.revision}{content}")
