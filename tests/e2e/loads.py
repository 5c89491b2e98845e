"""Callers in numbers: `wrk` in the background, and many calls at once over raw sockets."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running_platform import Answer, Platform, wait_for

_SCRIPT = """
wrk.method = "%s"
wrk.body = %s
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\\n{"requests": %%d, "socket": %%d, "timeout": %%d, "bad": %%d, "p99": %%f}\\n',
    summary.requests, errors.connect + errors.read + errors.write, errors.timeout, errors.status,
    latency:percentile(99) / 1000000))
end
"""


@dataclass(frozen=True)
class Report:
    """What wrk saw. `socket` counts transport failures, `bad` answers that were not 2xx or 3xx; `p99` is in seconds."""

    requests: int
    socket: int
    timeout: int
    bad: int
    p99: float


class Load:
    """wrk, while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def report(self) -> Report:
        """End it and read what it saw."""
        self._process.send_signal(signal.SIGINT)
        out, err = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, err
        values: dict[str, Any] = json.loads(out.splitlines()[-1])
        return Report(**values)


@contextmanager
def wrk(platform: Platform, name: str, *, path: str = "", connections: int = 16, method: str = "GET") -> Iterator[Load]:
    """Calls the function from so many connections, until `report` is asked for."""
    script = platform.folder / f"wrk-{name}.lua"
    script.write_text(_SCRIPT % (method, '"x"' if method == "POST" else "nil"))
    before = invocations(platform, name)
    command = ["wrk", "-t1", f"-c{connections}", "-d120s", "--timeout", "20s", "-s", str(script)]
    process = subprocess.Popen(
        [*command, f"{platform.http_url}/function/{name}{path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: invocations(platform, name) > before + 100, "wrk's first calls")
        yield Load(process)
    finally:
        process.kill()
        process.wait()


def invocations(platform: Platform, name: str) -> float:
    """Calls that the platform has counted; only the list tells (contract section 2.3)."""
    return next(status.invocation_count for status in platform.client.functions() if status.name == name)


@contextmanager
def calls_going_on(platform: Platform, name: str, number: int = 500) -> Iterator[None]:
    """At the end, wait until so many calls more have been answered."""
    yield
    goal = invocations(platform, name) + number
    wait_for(lambda: invocations(platform, name) >= goal, "further calls")


def request(
    name: str, body: bytes = b"", *, path: str = "", method: str = "POST", headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of one call, after which the server closes the connection."""
    fields = {"Host": "x", "Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
    head = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    return f"{method} /function/{name}{path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def call(address: tuple[str, int], name: str, body: bytes = b"", **options: Any) -> Answer:
    """One call on a socket of its own. Raises `http.client.IncompleteRead` for an answer that breaks off."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request(name, body, **options))
        return parse(await reader.read())
    finally:
        writer.close()


async def calls(address: tuple[str, int], name: str, number: int, body: bytes = b"", **options: Any) -> list[Answer]:
    """So many calls at the same time, each on a socket of its own."""
    return await asyncio.gather(*(call(address, name, body, **options) for _ in range(number)))


def parse(raw: bytes) -> Answer:
    """A whole answer from the bytes of a connection."""
    response = http.client.HTTPResponse(_Bytes(raw))  # type: ignore[arg-type]
    response.begin()
    fields = {key.lower(): value for key, value in response.getheaders()}
    return Answer(response.status, fields, response.read())


class _Bytes:
    """What http.client asks of a socket."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


@contextmanager
def elapsed_under(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    took = time.monotonic() - begun
    assert took < seconds, f"it took {took:.2f} s, more than {seconds} s"


def log_files(platform: Platform, name: str) -> set[str]:
    """One for each replica that was ever started of a function."""
    folder = platform.data.logs / "openfaas-fn" / name
    return {path.name for path in Path(folder).glob("*.log")}
