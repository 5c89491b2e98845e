"""Memory: of the idle platform, of one more replica, of a thousand functions at rest; and the time to list those.

PSS divides a page by the number of processes that map it, so the sum over the platform's processes is what it takes
from the machine. USS is what only one process has: what ending it would give back.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.processes import TEST_CORE, BenchError, memory_of, python, running, wait_until
from bench.report import Figure
from bench.serving import HELLO, Serving, condition, serving, settle
from stoker_sdk.client import ControlClient
from stoker_sdk.function import FunctionSpec

_SETTLE_SECONDS = 3.0
_FEW, _MORE = 2, 4
_CALLS_EACH = 10
_FUNCTIONS = 1000
_AT_ONCE = 8
_LISTINGS = 10
_BARE = "import threading; print('ready', flush=True); threading.Event().wait()"


def replica_figures(folder: Path) -> list[Figure]:
    """`replica_uss_mb`."""
    with serving(folder, "--proxies", "1") as platform:
        platform.deploy("hello", HELLO)
        before, _ = _warm(platform, _FEW)
        after, each = _warm(platform, _FEW + _MORE)
        bare = _bare_interpreter(folder)
    value, added = median(each), (after - before) / _MORE
    note = (
        f"{len(each)} replicas: {min(each):.2f} to {max(each):.2f}; the platform's USS grew by {added:.2f} MB for each"
    )
    return [Figure("replica_uss_mb", value, f"{value:.2f} MB", f"a bare python process {bare:.2f} MB", note)]


def _warm(platform: Serving, number: int) -> tuple[float, list[float]]:
    """The USS of the whole platform, and of each replica, at so many replicas that have all been called."""
    platform.scale("hello", number)
    connection = _connect(platform)
    for _ in range(number * _CALLS_EACH):
        _get(connection, "/function/hello", {})
    settle(_SETTLE_SECONDS)
    pids = {instance.pid for instance in condition(platform.client(), "hello").instances}
    memory = memory_of(platform.pid)
    return sum(one.uss for one in memory.values()), [memory[pid].uss for pid in pids]


def _bare_interpreter(folder: Path) -> float:
    log = folder / "bare.log"
    with running(python("-c", _BARE), core=TEST_CORE, log=log) as process:
        wait_until(lambda: b"ready" in log.read_bytes(), "a bare interpreter did not start")
        return memory_of(process.pid)[process.pid].uss


def idle_figures(folder: Path) -> list[Figure]:
    """`idle_pss_mb`: `stoker serve` as it is without any option, except that ports are free ones."""
    with serving(folder) as platform:
        settle(_SETTLE_SECONDS)
        parts = _pss(platform)
        bare = _bare_interpreter(folder)
    note = "PSS in MB: " + ", ".join(f"{name} {size:.1f}" for name, size in parts)
    total = _total(parts)
    return [Figure("idle_pss_mb", total, f"{total:.1f} MB", f"a bare python process {bare:.2f} MB (USS)", note)]


def _pss(platform: Serving) -> list[tuple[str, float]]:
    """Each process of the platform in a word, and its PSS in MB."""
    return [(_word(one.name), one.pss) for one in memory_of(platform.pid).values()]


def _word(module: str) -> str:
    return "supervisor" if module == "stoker_cli" else module.rpartition(".")[2]


def _total(parts: Sequence[tuple[str, float]]) -> float:
    return sum(size for _, size in parts)


def thousand_figures(folder: Path) -> list[Figure]:
    """`functions_1000_mb`, `list_1000_ms`."""
    with serving(folder) as platform:
        image = platform.deploy("hello", HELLO)
        platform.scale("hello", 0)
        one = _median_listing(platform, 1)
        settle(_SETTLE_SECONDS)
        before = _pss(platform)
        _deploy_at_rest(platform, image)
        settle(_SETTLE_SECONDS)
        after = _pss(platform)
        listing = _median_listing(platform, 1 + _FUNCTIONS)
        bare = _bare_interpreter(folder)
    added = _total(after) - _total(before)
    peer = f"a bare python process for each {bare * _FUNCTIONS:,.0f} MB"
    grown = ", ".join(f"{name} {new - old:+.1f}" for (name, old), (_, new) in zip(before, after, strict=True))
    return [
        Figure("functions_1000_mb", added, f"{added:.2f} MB", peer, f"PSS in MB: {grown}"),
        Figure("list_1000_ms", listing, f"{listing:.1f} ms", f"list of one function {one:.2f} ms"),
    ]


def _deploy_at_rest(platform: Serving, image: str) -> None:
    """Each function is deployed, seen ready, and scaled to zero; at the end no replica is left."""
    names = [f"rest-{number}" for number in range(_FUNCTIONS)]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        shares = [names[first::_AT_ONCE] for first in range(_AT_ONCE)]
        for done in [threads.submit(_deploy_share, platform, share, image) for share in shares]:
            done.result()
    client = platform.client()
    wait_until(lambda: _all_gone(client), "replicas of functions that were scaled to zero are still there", 60)


def _deploy_share(platform: Serving, names: Sequence[str], image: str) -> None:
    client = platform.client()
    for name in names:
        client.create(FunctionSpec(name, image))
        _wait_ready(client, name)
        client.scale(name, 0)


def _wait_ready(client: ControlClient, name: str) -> None:
    wait_until(lambda: condition(client, name).state == "ready", f"function {name} is not ready")


def _all_gone(client: ControlClient) -> bool:
    return not any(status.stoker and status.stoker.instances for status in client.functions())


def _median_listing(platform: Serving, number: int) -> float:
    return median(_listing_ms(platform, number) for _ in range(_LISTINGS))


def _listing_ms(platform: Serving, number: int) -> float:
    """Milliseconds until the whole list has arrived over an open connection; it must name so many functions."""
    connection = _connect(platform)
    begun = perf_counter()
    body = _get(connection, "/system/functions", {"Authorization": platform.authorization})
    taken = (perf_counter() - begun) * 1000
    connection.close()
    listed = len(json.loads(body))
    if listed != number:
        raise BenchError(f"the list names {listed} functions, not {number}")
    return taken


def _connect(platform: Serving) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(platform.url.removeprefix("http://"), timeout=60)
    connection.connect()
    return connection


def _get(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> bytes:
    connection.request("GET", path, headers=headers)
    return connection.getresponse().read()
