"""Handlers that keep connections to a real PostgreSQL, and how to deploy them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from postgres import Postgres
from running_platform import Files, Platform, wait_for

from stoker_sdk.messages import Secret

REQUIREMENTS = "psycopg[binary,pool]==3.3.9\n"

POOLED = """
import os
from psycopg_pool import ConnectionPool

def init(context):
    pool = ConnectionPool(context.secret("{secret}"), min_size=1, max_size=context.connections or 2, open=True)
    pool.wait(10)
    print("opened in", os.getpid())
    return pool

def health(context):
    with context.state.connection(timeout=0.8) as connection:
        connection.execute("SELECT 1")

def close(context):
    context.state.close()
    print("closed")

def handle(event, context):
    if event.text:
        print("begun", flush=True)
    with context.state.connection() as connection:
        cursor = connection.execute("SELECT pg_backend_pid() FROM pg_sleep(%s)", [float(event.text or 0)])
        backend = cursor.fetchone()[0]
    return {{"backend": backend, "pid": os.getpid()}}
"""

LAZY = """
import os, time
import psycopg

made = []

def connect(context):
    made.append(os.getpid())
    connection = psycopg.connect(context.secret("{secret}"), autocommit=True)
    connection.execute("SELECT pg_sleep(0.3)")
    return connection

def handle(event, context):
    if event.path == "/look":
        return {{"made": made, "pid": os.getpid(), "there": context.made(connect) is not None}}
    begun = time.monotonic()
    backend = context.once(connect).execute("SELECT pg_backend_pid()").fetchone()[0]
    return {{"backend": backend, "made": made, "pid": os.getpid(), "seconds": time.monotonic() - begun}}
"""


def files(handler: str, **more: str) -> Files:
    return {"handler.py": handler, "requirements.txt": REQUIREMENTS, **more}


@contextmanager
def pooled(
    platform: Platform,
    postgres: Postgres,
    name: str,
    handler: Files | str = POOLED,
    *,
    most: int = 20,
    connections: int = 0,
    settings: dict[str, str] | None = None,
) -> Iterator[str]:
    """The function, deployed, with a database user and a secret of its own name; removed at the end."""
    set_secret(platform, name, postgres.make_user(name))
    annotations = {"stoker.dev/connections": str(connections)} if connections else {}
    given = files(handler.format(secret=name)) if isinstance(handler, str) else handler
    platform.deploy(
        name,
        given,
        lang="python3-http",
        secrets=[name],
        labels={"com.openfaas.scale.max": str(most)},
        annotations=annotations | (settings or {}),
    )
    try:
        yield name
    finally:
        platform.client.remove(name)
        wait_for(lambda: not postgres.rows(name), "the end of its sessions", 30)


def set_secret(platform: Platform, name: str, value: str) -> None:
    secret = Secret(name=name, namespace="openfaas-fn", value=value)
    if name in [known.name for known in platform.client.secrets("openfaas-fn")]:
        platform.client.update_secret(secret)
    else:
        platform.client.create_secret(secret)


def texts(platform: Platform, name: str) -> list[str]:
    return [line.text.rstrip("\n") for line in platform.logs(name)]


def answers(found: list[Any]) -> list[dict[str, Any]]:
    """The JSON of calls, all of which must have succeeded."""
    assert {one.status for one in found} == {200}, [one.text for one in found if one.status != 200][:3]
    return [one.json() for one in found]
