"""What can be tested without MongoDB: up to the connection attempt."""

import socket
import threading
from types import SimpleNamespace

import pytest
from pymongo.errors import PyMongoError

from . import handler


class Context:
    """As much of the real one as the handler uses."""

    connections = 3

    def __init__(self, port):
        self.secret = {"mongo-uri": f"mongodb://127.0.0.1:{port}/"}.__getitem__
        self._made = {}

    def once(self, factory):
        if factory not in self._made:
            self._made[factory] = factory(self)
        return self._made[factory]

    def made(self, factory):
        return self._made.get(factory)


@pytest.fixture
def deaf(monkeypatch):
    """A port that takes connections and never answers; `heard` is the first thing that was said to it."""
    monkeypatch.setattr(handler, "ANSWER_TIMEOUT", 300)
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = SimpleNamespace(port=server.getsockname()[1], heard=[])

        def listen():
            try:
                connection, _ = server.accept()
                found.heard.append(connection.recv(16))
            except OSError:
                pass

        threading.Thread(target=listen, daemon=True).start()
        yield found


def test_the_client_is_made_by_the_first_call_and_kept(deaf):
    context = Context(deaf.port)
    assert context.made(handler.connect) is None
    handler.health(context)
    for _ in range(2):
        with pytest.raises(PyMongoError):
            handler.handle(SimpleNamespace(method="GET", text=""), context)
    client = context.made(handler.connect)
    assert client is context.once(handler.connect)
    assert client.options.pool_options.max_pool_size == 3
    handler.close(context)


def test_a_call_speaks_to_the_server_and_gives_up_in_time(deaf):
    context = Context(deaf.port)
    with pytest.raises(PyMongoError):
        handler.handle(SimpleNamespace(method="POST", text="note"), context)
    (header,) = deaf.heard
    assert int.from_bytes(header[12:16], "little") in (2004, 2013)  # OP_QUERY, OP_MSG
    with pytest.raises(PyMongoError):
        handler.health(context)
    handler.close(context)
