"""What can be tested without a database: that a start fails in time, and says with what."""

import asyncio
import socket
from types import SimpleNamespace

import pytest

from . import handler


def context_of(port):
    dsn = f"postgresql://app:secret@127.0.0.1:{port}/app"
    return SimpleNamespace(connections=2, secret={"postgres-dsn": dsn}.__getitem__, state=None)


def test_without_a_database_the_start_fails_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(OSError):
        asyncio.run(handler.init(context_of(port)))


def test_a_database_that_does_not_answer_fails_the_start_in_time(monkeypatch):
    monkeypatch.setattr(handler, "OPEN_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        asyncio.run(handler.init(context_of(silent.getsockname()[1])))
