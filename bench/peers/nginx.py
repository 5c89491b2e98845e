"""nginx as a fixed back end and as a proxy, with the settings that let it be as fast as it can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import LOAD_CORE, TEST_CORE, Started, answers, free_port, running

_HTTP = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type text/plain;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  {upstream}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ {location} }} }}
}}
"""
_UPSTREAM = """
  upstream backend {{
    server 127.0.0.1:{port};
    keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h;
  }}
"""
_PROXY_PASS = 'proxy_pass http://backend/; proxy_http_version 1.1; proxy_set_header Connection "";'
_FIXED = 'return 200 "hello\\n";'


@contextmanager
def fixed_back_end(folder: Path) -> Iterator[Started]:
    """nginx that answers every request with the same small text, on the core of the load."""
    with _nginx(folder / "back-end", LOAD_CORE, "", _FIXED) as started:
        yield started


@contextmanager
def nginx_proxy(folder: Path, backend_port: int) -> Iterator[Started]:
    """nginx that passes everything on over kept-alive connections, on the core under test."""
    upstream = _UPSTREAM.format(port=backend_port)
    with _nginx(folder / "nginx-proxy", TEST_CORE, upstream, _PROXY_PASS) as started:
        yield started


@contextmanager
def _nginx(folder: Path, core: int, upstream: str, location: str) -> Iterator[Started]:
    folder.mkdir()
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(_HTTP.format(port=port, upstream=upstream, location=location))
    command = ["nginx", "-p", f"{folder}/", "-e", "error.log", "-c", str(file)]
    with running(command, core=core, log=folder / "output.log") as process:
        url = f"http://127.0.0.1:{port}/"
        answers(url, process)
        yield Started(process.pid, url, port)
