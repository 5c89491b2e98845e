"""A server before the Kubernetes API that passes requests on, or answers in its place as a test says.

with ScriptedApi(cluster, folder) as api:
    api.refuse("POST", "/services", 500)        # from now on, every request whose path ends so
    api.refuse("POST", "/services", 429, times=1)
    api.heal()
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import yaml
from running_cluster import Cluster

_HOP = ("connection", "transfer-encoding", "content-length", "host", "accept-encoding")


class ScriptedApi:
    """`kubeconfig` leads to it, with the token of an account."""

    def __init__(self, cluster: Cluster, folder: Path, token: str) -> None:
        flat = json.loads(cluster.kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))
        real = flat["clusters"][0]["cluster"]
        goal = urlsplit(real["server"])
        authority = base64.b64decode(real["certificate-authority-data"]).decode()
        trust = ssl.create_default_context(cadata=authority)
        self._refused: dict[tuple[str, str], tuple[int, int]] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: object) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if status := api._refusal(self.command, urlsplit(self.path).path):
                    self._refuse(status)
                else:
                    self._pass_on(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def _refuse(self, status: int) -> None:
                told = json.dumps({"kind": "Status", "code": status, "message": f"scripted {status}"}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def _pass_on(self, body: bytes) -> None:
                connection = http.client.HTTPSConnection(str(goal.hostname), goal.port or 443, context=trust)
                try:
                    headers = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    self.send_response(answer.status)
                    for key, value in answer.getheaders():
                        if key.lower() not in _HOP:
                            self.send_header(key, value)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    while data := answer.read1(65536):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:  # the one or the other has gone
                    self.close_connection = True
                finally:
                    connection.close()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.kubeconfig = folder / "scripted-kubeconfig"
        url = f"http://127.0.0.1:{self._server.server_port}"
        self.kubeconfig.write_text(yaml.safe_dump(kubeconfig(url, token)))

    def __enter__(self) -> ScriptedApi:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def refuse(self, method: str, path: str, status: int, *, times: int = 1_000_000) -> None:
        """Answer such requests with this status, so many times."""
        self._refused[method, path] = (status, times)

    def heal(self) -> None:
        self._refused.clear()

    def _refusal(self, method: str, path: str) -> int:
        for (refused, end), (status, times) in list(self._refused.items()):
            if method == refused and path.endswith(end) and times:
                self._refused[refused, end] = (status, times - 1)
                return status
        return 0


def kubeconfig(server: str, token: str) -> dict[str, object]:
    """Access by a token."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
