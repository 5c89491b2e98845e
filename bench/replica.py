"""One replica alone against uvicorn: the same trivial `async def`, nothing in front, one core.

The replica is the real process body, started as the fork server starts it, but listening on TCP, because wrk speaks no
unix sockets.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.load import Subject, duel, rate_figure
from bench.processes import TEST_CORE, BenchError, Started, answers, free_port, python, running
from bench.report import Figure

_HANDLER = Path(__file__).parent / "functions" / "hello_async"
_PEERS = Path(__file__).parent / "peers"
_LAUNCH = (
    "import gc, os, sys; from stoker_watchdog.replica import run_replica; "
    "gc.collect(); gc.freeze(); run_replica(*map(int, sys.argv[1:]), os.getppid())"
)
_CONNECTIONS = 32
_START_SECONDS = 20


def replica_figures(folder: Path) -> list[Figure]:
    """`replica_vs_uvicorn`."""
    with ExitStack() as stack:
        subjects = [
            _subject("replica", stack.enter_context(started_replica(folder))),
            _subject("uvicorn", stack.enter_context(_uvicorn(folder))),
        ]
        result = duel(subjects, connections=_CONNECTIONS, seconds=3, rounds=6)
    return [rate_figure("replica_vs_uvicorn", result, "replica", "uvicorn")]


def _subject(name: str, started: Started) -> Subject:
    return Subject(name, started.url, (started.pid,))


@contextmanager
def started_replica(folder: Path, **settings: object) -> Iterator[Started]:
    """A replica that listens on TCP, on the core for what is measured; `settings` go beyond the trivial handler's."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    reader, writer = os.pipe()
    described = os.open(_settings(folder, settings), os.O_RDONLY)
    output = os.open(folder / "replica-function.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    descriptors = (described, listener.fileno(), output, writer)
    command = python("-c", _LAUNCH, *map(str, descriptors))
    with running(command, core=TEST_CORE, log=folder / "replica.log", descriptors=descriptors) as process:
        listener.close()
        for descriptor in (described, output, writer):
            os.close(descriptor)
        _wait_ready(reader)
        url = f"http://127.0.0.1:{port}/"
        answers(url, process)
        yield Started(process.pid, url, port)
    os.close(reader)


def _settings(folder: Path, more: Mapping[str, object]) -> Path:
    """An artefact's folder as the builder lays it out, and the file that tells a replica of it."""
    code = folder / "artefact"
    shutil.copytree(_HANDLER, code / "function")
    path = folder / "settings.json"
    values = {
        "id": "hello-1-bench",
        "function": "hello",
        "namespace": "openfaas-fn",
        "code": str(code),
        "paths": [str(code), str(code / "function")],
        "environment": {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
    }
    path.write_text(json.dumps(values | dict(more)))
    return path


def _wait_ready(reader: int) -> None:
    readable, _, _ = select.select([reader], [], [], _START_SECONDS)
    line = os.read(reader, 65536) if readable else b""
    if b'"ready"' not in line:
        raise BenchError(f"the replica did not start: {line.decode(errors='replace') or 'it says nothing'}")


@contextmanager
def _uvicorn(folder: Path) -> Iterator[Started]:
    """One worker; without access log and without headers of its own, which the replica does not send either."""
    port = free_port()
    lean = ("--no-access-log", "--no-server-header", "--no-date-header", "--no-proxy-headers")
    engine = ("--loop", "uvloop", "--http", "httptools", "--lifespan", "off", "--log-level", "warning")
    command = python("-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), *engine, *lean, "asgi_app:app")
    with running(command, core=TEST_CORE, log=folder / "uvicorn.log", folder=_PEERS) as process:
        url = f"http://127.0.0.1:{port}/"
        answers(url, process)
        yield Started(process.pid, url, port)
