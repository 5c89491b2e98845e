"""A relay before the Kubernetes API, for tests that count what is sent to it, or take it away for a while.

It passes bytes both ways, so TLS and credentials are those of the real server.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import TracebackType

import yaml


class ApiRelay:
    """`sent` is how many bytes clients have sent; `cut` ends all connections and refuses new ones until `mend`."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        server = document["clusters"][0]["cluster"]
        host, _, port = server["server"].removeprefix("https://").rpartition(":")
        self._goal = (host, int(port))
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = self._listen(0)
        self._port = self._listener.getsockname()[1]
        server["server"] = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = folder / "relayed-kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(document))
        self.sent = 0

    def __enter__(self) -> ApiRelay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def cut(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in list(self._pairs):
            _end(pair)

    def mend(self) -> None:
        self._listener = self._listen(self._port)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._goal)
            self._pairs.add((client, server))
            for source, goal, counts in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=(source, goal, counts), daemon=True).start()

    def _pass(self, source: socket.socket, goal: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(65536):
                if counts:
                    self.sent += len(data)
                goal.sendall(data)
        except OSError:
            pass
        pair = (source, goal) if counts else (goal, source)
        _end(pair)
        self._pairs.discard(pair)


def _end(pair: tuple[socket.socket, socket.socket]) -> None:
    for one in pair:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        one.close()
