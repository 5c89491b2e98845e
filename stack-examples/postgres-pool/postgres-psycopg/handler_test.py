"""What can be tested without a database: how large the pool is, and that nothing waits for ever."""

import socket
import time
from types import SimpleNamespace

import pytest
from psycopg_pool import PoolTimeout

from . import handler


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def context_of(connections=0):
    dsn = f"postgresql://app:secret@127.0.0.1:{closed_port()}/app"
    return SimpleNamespace(connections=connections, secret={"postgres-dsn": dsn}.__getitem__, state=None)


@pytest.mark.parametrize(("share", "size"), [(3, 3), (1, 1), (0, 4)])
def test_the_pool_is_as_large_as_this_replicas_share(share, size):
    pool = handler.make_pool(context_of(share))
    assert (pool.min_size, pool.max_size) == (1, size)


def test_without_a_database_the_start_fails_in_time(monkeypatch):
    monkeypatch.setattr(handler, "OPEN_TIMEOUT", 0.3)
    begun = time.monotonic()
    with pytest.raises(PoolTimeout):
        handler.init(context_of())
    assert time.monotonic() - begun < 5


def test_without_a_database_it_is_unhealthy():
    context = context_of()
    context.state = handler.make_pool(context)
    context.state.open()
    try:
        with pytest.raises(PoolTimeout):
            handler.health(context)
    finally:
        handler.close(context)
    assert context.state.closed
