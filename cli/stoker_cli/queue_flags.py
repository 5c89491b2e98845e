"""The flags of `stoker serve` about async calls; those about the user's own broker are `stoker pipeline`'s, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_BROKER_OPTIONS = (
    click.option("--nats", metavar="URL", default="", help="Your own NATS JetStream instead of one of ours."),
    click.option("--nats-user", default="", help="Its user; the password by --nats-password-file."),
    click.option("--nats-password-file", type=click.Path(exists=True, dir_okay=False), default=None),
    click.option("--nats-token-file", type=click.Path(exists=True, dir_okay=False), default=None),
    click.option("--nats-creds", type=click.Path(exists=True, dir_okay=False), default=None, help="Credentials file."),
    click.option("--nats-ca", type=click.Path(exists=True, dir_okay=False), default=None, help="For tls:// URLs."),
)
_OPTIONS = (
    click.option("--no-async", is_flag=True, help="No async calls: neither broker nor workers."),
    click.option(
        "--async-durability",
        type=click.Choice(["always", "relaxed"]),
        default="always",
        show_default=True,
        help="When a stored call is on disk: before its 202, or up to 2 s later.",
    ),
    click.option("--workers", type=click.IntRange(0, 64), default=1, show_default=True, help="Processes for them."),
    click.option("--max-async-body", default="1Gi", show_default=True, help="The largest body, at most 1Gi."),
    click.option("--worker-lost-after", default="30s", show_default=True, help="Its calls go to others then."),
    click.option("--idempotency-window", default="24h", show_default=True, help="For so long a key runs once."),
    click.option("--removed-after", default="5m", show_default=True, help="Calls of a removed function are dead then."),
    click.option("--callback-allow", multiple=True, metavar="HOST|NET", help="Callbacks go there and nowhere else."),
    click.option("--callback-deny", multiple=True, metavar="HOST|NET", help="Callbacks never go there."),
    click.option("--allow-private-callbacks", is_flag=True, help="Also to this machine and private networks."),
    click.option(
        "--callback-secret-file",
        type=click.Path(exists=True, dir_okay=False),
        default=None,
        help="Its content signs callbacks (X-Stoker-Signature).",
    ),
    *_BROKER_OPTIONS,
)


def queue_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of them, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def broker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds those about the broker."""
    for option in reversed(_BROKER_OPTIONS):
        command = option(command)
    return command
