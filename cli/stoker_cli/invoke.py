"""`stoker invoke`: call a function with standard input, and print what it answers."""

from __future__ import annotations

import itertools
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote_plus

import click

from stoker_cli.command import Command
from stoker_cli.connection import connected
from stoker_cli.options import Target, target_options
from stoker_cli.surroundings import Surroundings
from stoker_sdk.errors import BadUsage, StokerError

if TYPE_CHECKING:
    import urllib3

    from stoker_sdk.client import ControlClient
    from stoker_sdk.messages import CallStatus

ENDED = ("done", "dead", "cancelled")
"""States of an async call that has ended."""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

_HELD = 1 << 20
"""Bytes of input that are read before the call: with all of it at hand, the length can be said in the
request.
"""


@click.command("invoke", cls=Command)
@click.argument("name")
@target_options
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; may be repeated.")
@click.option("--query", multiple=True, metavar="NAME=VALUE", help="A query parameter; may be repeated.")
@click.option("-X", "-m", "--method", default="POST", metavar="METHOD", help="The method. [default: POST]")
@click.option("--content-type", default="text/plain", metavar="TYPE", help="The body's type. [default: text/plain]")
@click.option("-a", "--async", "asynchronous", is_flag=True, help="Only queue the call; its answer is not waited for.")
@click.option("--wait", is_flag=True, help="With --async: wait until the call has ended, and tell how.")
@click.option("--sign", default="", metavar="NAME", help="Sign the body in this header: HMAC-SHA256, with --key.")
@click.option("--key", "key_flag", default="", metavar="TEXT", help="The key for --sign; better in $STOKER_SIGN_KEY.")
@click.pass_obj
def invoke(
    surroundings: Surroundings,
    target: Target,
    name: str,
    headers: tuple[str, ...],
    query: tuple[str, ...],
    method: str,
    content_type: str,
    asynchronous: bool,
    wait: bool,
    sign: str,
    key_flag: str,
) -> None:
    """Call a function. The body is standard input, when that is not a terminal; the answer goes to standard
    output.

    \b
    echo hello | stoker invoke greet
    stoker invoke greet -X GET --query name=Ada -H 'Accept: application/json' < /dev/null
    stoker invoke greet --async --wait < order.json
    stoker invoke greet --sign X-Hub-Signature-256 --key "$KEY" < event.json
    """
    if method.upper() not in METHODS:
        raise BadUsage(f"--method {method!r} is not one of {', '.join(METHODS)}")
    if wait and not asynchronous:
        raise BadUsage("--wait is for --async: without it the answer is waited for anyway")
    sent = {"Content-Type": content_type, **dict(map(read_header, headers))}
    key = key_flag or surroundings.environment.get("STOKER_SIGN_KEY", "")
    if (sign and not key) or (key_flag and not sign):
        raise BadUsage("--sign names the header and --key the key: give both, or none")
    length = _length(sys.stdin.buffer)
    body = None if sys.stdin.isatty() else _body(sys.stdin.buffer, length or sys.maxsize)
    if sign:
        body, sent[sign] = signed(body, key)
    elif length > _HELD:
        sent["Content-Length"] = str(length)  # so that one which is too large is refused before it is sent
    with (
        connected(target, surroundings) as client,
        client.invoke(
            name,
            target.namespace,
            method=method.upper(),
            query="&".join(map(_parameter, query)),
            headers=sent,
            body=body,
            asynchronous=asynchronous,
        ) as response,
    ):
        if not 200 <= response.status < 300:
            raise _failure(response)
        for chunk in client.chunks(response):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        if asynchronous:
            click.echo(_submitted(response), err=True)
        if wait:
            _wait_for_end(client, response.headers.get("X-Call-Id", ""))


def _wait_for_end(client: ControlClient, id: str) -> None:
    """Ask how the call goes until it has ended. Ctrl-C leaves it as it is."""
    if not id:
        raise StokerError(f"{client.gateway} gave the call no id, so it cannot be waited for")
    pauses = itertools.chain((0.05, 0.1, 0.2, 0.5), itertools.repeat(1.0))
    while (status := client.call_status(id)).state not in ENDED:
        time.sleep(next(pauses))
    if status.state != "done" or status.status >= 400:
        raise StokerError(ending(status))
    click.echo(ending(status), err=True)


def ending(status: CallStatus) -> str:
    """How a call ended, in a line or two; the second holds what a function answered to a call that is dead."""
    answered = f", status {status.status}" if status.status else ""
    why = f": {status.reason}" if status.reason else ""
    answer = f"\n{status.answer.strip()}" if status.answer.strip() else ""
    attempts = f" after {len(status.attempts)} attempts" if len(status.attempts) > 1 else ""
    return f"call {status.id} is {status.state}{attempts}{answered}{why}{answer}"


def signed(body: bytes | Iterator[bytes] | None, key: str) -> tuple[bytes, str]:
    """The whole body, and the value of its signature's header (contract section 3.2): it must be known before the
    first byte is sent.
    """
    import hmac

    whole = body if isinstance(body, bytes) else b"".join(body or ())
    return whole, f"sha256={hmac.new(key.encode(), whole, 'sha256').hexdigest()}"


def _submitted(response: urllib3.BaseHTTPResponse) -> str:
    call = response.headers.get("X-Call-Id", "")
    return f"Function submitted asynchronously{f', call {call}' if call else ''}."


def _length(source: BinaryIO) -> int:
    """Bytes of a file that are still to be read; 0 for what is none."""
    try:
        status = os.fstat(source.fileno())
        return status.st_size - source.tell() if stat.S_ISREG(status.st_mode) else 0
    except OSError:
        return 0


def _body(source: BinaryIO, most: int) -> bytes | Iterator[bytes]:
    """All of it, or the pieces of a large one. A file that grows meanwhile is sent as long as it was: `most` bytes."""
    head = source.read(_HELD)
    return head if len(head) < _HELD else _streamed(head, source, most - len(head))


def _streamed(head: bytes, source: BinaryIO, left: int) -> Iterator[bytes]:
    yield head
    while piece := source.read(min(left, 64 << 10)):
        yield piece
        left -= len(piece)


def read_header(text: str) -> tuple[str, str]:
    """Name and value of a header on the command line. Raises `BadUsage`."""
    separator = ":" if ":" in text.partition("=")[0] else "="
    name, found, value = text.partition(separator)
    if not found or not name.strip():
        raise BadUsage(f"--header {text!r} is not a header: write 'Name: value'")
    return name.strip(), value.strip()


def _parameter(text: str) -> str:
    name, found, value = text.partition("=")
    if not found or not name:
        raise BadUsage(f"--query {text!r} is not a parameter: write name=value")
    return f"{quote_plus(name)}={quote_plus(value)}"


def _failure(response: urllib3.BaseHTTPResponse) -> StokerError:
    body = response.read(64 << 10).decode("utf-8", "replace").strip()
    reason = response.headers.get("X-Stoker-Error", "")
    suffix = f"\nX-Stoker-Error: {reason}" if reason else ""
    return StokerError(f"server returned unexpected status code: {response.status} - {body}{suffix}")
