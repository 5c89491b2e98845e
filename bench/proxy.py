"""The proxy against nginx and aiohttp in front of one fixed back end, and proxy with replica against Flask.

The proxy is the real process with every feature on; only its route table comes from here, because it must lead to the
same back end as its peers'.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bench.load import Subject, duel, p99_figure, rate_figure
from bench.peers.nginx import fixed_back_end, nginx_proxy
from bench.processes import TEST_CORE, Started, answers, free_port, python, running
from bench.report import Figure
from bench.serving import HELLO, serving
from stoker_cli.server.listening import listen
from stoker_gateway.link import Table, encode
from stoker_gateway.proxy.__main__ import ProxyConfig
from stoker_gateway.routes import Route, Target
from stoker_gateway.tls import ensure_certificates

_PEERS = Path(__file__).parent / "peers"
_CONNECTIONS = 32
_CONCURRENCY = 1000


def proxy_figures(folder: Path) -> list[Figure]:
    """`proxy_vs_nginx`, `proxy_vs_aiohttp`, `proxy_p99_vs_nginx`."""
    with ExitStack() as stack:
        back_end = stack.enter_context(fixed_back_end(folder))
        ours = stack.enter_context(stoker_proxy(folder, f"tcp:127.0.0.1:{back_end.port}"))
        nginx = stack.enter_context(nginx_proxy(folder, back_end.port))
        aiohttp = stack.enter_context(_aiohttp_proxy(folder, back_end.url))
        subjects = [_subject("stoker", ours), _subject("nginx", nginx), _subject("aiohttp", aiohttp)]
        result = duel(subjects, connections=_CONNECTIONS, seconds=3, rounds=5)
    return [
        rate_figure("proxy_vs_nginx", result, "stoker", "nginx"),
        rate_figure("proxy_vs_aiohttp", result, "stoker", "aiohttp"),
        p99_figure("proxy_p99_vs_nginx", result, "stoker", "nginx"),
    ]


def python_figures(folder: Path) -> list[Figure]:
    """`python_vs_flask`."""
    with ExitStack() as stack:
        platform = stack.enter_context(serving(folder, "--proxies", "1"))
        platform.deploy("hello", HELLO)
        waitress = stack.enter_context(_flask(folder))
        nginx = stack.enter_context(nginx_proxy(folder, waitress.port))
        subjects = [
            Subject("stoker", platform.function_url("hello"), (platform.pid,)),
            Subject("flask", nginx.url, (nginx.pid, waitress.pid)),
        ]
        result = duel(subjects, connections=_CONNECTIONS, seconds=4, rounds=4, warm_up=2)
    return [rate_figure("python_vs_flask", result, "stoker", "flask")]


def _subject(name: str, started: Started) -> Subject:
    return Subject(name, started.url, (started.pid,))


@contextmanager
def stoker_proxy(folder: Path, back_end: str) -> Iterator[Started]:
    """The proxy process with a table of one function, whose replica is at this address."""
    (http,) = listen(("127.0.0.1", 0), 1, "--http")
    (https,) = listen(("127.0.0.1", 0), 1, "--https")
    reader, writer = os.pipe()
    certificates = ensure_certificates(folder / "tls", ())
    config = ProxyConfig(
        number=0,
        http_fds=[http.fileno()],
        https_fds=[https.fileno()],
        control_socket=str(folder / "nobody.sock"),
        table_socket=str(folder / "table.sock"),
        certificate=str(certificates.chain),
        key=str(certificates.key),
        max_body=2 << 30,
        max_waiting=10_000,
        drain_seconds=1.0,
        ready_fd=writer,
    )
    command = python("-m", "stoker_gateway.proxy", msgspec.json.encode(config).decode())
    route = Route("hello.openfaas-fn", 60.0, _CONCURRENCY, [Target("fixed", back_end)])
    inherited = (http.fileno(), https.fileno(), writer)
    with (
        _table(folder / "table.sock", [route]),
        running(command, core=TEST_CORE, log=folder / "proxy.log", descriptors=inherited) as process,
    ):
        port = http.getsockname()[1]
        for listener in (http, https):
            listener.close()
        os.close(writer)
        url = f"http://127.0.0.1:{port}/function/hello"
        answers(url, process)
        yield Started(process.pid, url, port)
    os.close(reader)


@contextmanager
def _table(path: Path, routes: list[Route]) -> Iterator[None]:
    """Control's end of the table link: sends the table to whoever connects, and lets what it hears pass by."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    threading.Thread(target=_send_table, args=(listener, routes), name="table", daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _send_table(listener: socket.socket, routes: list[Route]) -> None:
    try:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(encode(Table(1, routes)))
                while connection.recv(65536):
                    pass
    except OSError:
        return  # the figure is done


@contextmanager
def _aiohttp_proxy(folder: Path, backend: str) -> Iterator[Started]:
    port = free_port()
    command = python(str(_PEERS / "aiohttp_proxy.py"), str(port), backend)
    with running(command, core=TEST_CORE, log=folder / "aiohttp.log") as process:
        url = f"http://127.0.0.1:{port}/"
        answers(url, process)
        yield Started(process.pid, url, port)


@contextmanager
def _flask(folder: Path) -> Iterator[Started]:
    """Flask on waitress. As many threads as connections, or waitress would spend its time on warnings of its queue."""
    port = free_port()
    command = python("-m", "waitress", f"--listen=127.0.0.1:{port}", f"--threads={_CONNECTIONS}", "flask_app:app")
    with running(command, core=TEST_CORE, log=folder / "waitress.log", folder=_PEERS) as process:
        url = f"http://127.0.0.1:{port}/"
        answers(url, process)
        yield Started(process.pid, url, port)
