"""Async calls: how many are accepted a second beside bare publishing to the same broker, and how many are made beside
synchronous calls of the same function. In turns, because the machine's speed drifts.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.processes import LOAD_CORE, BenchError
from bench.report import Figure
from bench.serving import HELLO, Serving, serving
from stoker_sdk.broker.connection import connect
from stoker_sdk.broker.settings import read_settings

_ROUNDS = 3
_SECONDS = 3
_IN_FLIGHT = 64
_PAYLOAD = 500
"""Bytes that a stored call of `wrk` has, so that both publish the same."""
_LUA = 'wrk.method = "POST"\nwrk.body = string.rep("x", 100)\n'


def accept_figures(folder: Path) -> list[Figure]:
    """`async_accept_vs_publish`: with fsync before each acknowledgement."""
    return [_accept(folder, "async_accept_vs_publish", "always")]


def relaxed_figures(folder: Path) -> list[Figure]:
    """`async_accept_vs_publish_relaxed`."""
    return [_accept(folder, "async_accept_vs_publish_relaxed", "relaxed")]


def drain_figures(folder: Path) -> list[Figure]:
    """`async_drain_vs_sync`, in the default durability."""
    with serving(folder, "--proxies", "1") as platform:
        platform.deploy("hello", HELLO)
        sync, drained = [], []
        for _ in range(_ROUNDS):
            sync.append(_wrk(folder, platform.function_url("hello")))
            worker = _worker(platform)
            os.kill(worker, signal.SIGSTOP)
            try:
                _wrk(folder, platform.url + "/async-function/hello")
            finally:
                os.kill(worker, signal.SIGCONT)
            drained.append(_drain(platform))
    value = median(ours / peer for ours, peer in zip(drained, sync, strict=True))
    ours, peer = f"{median(drained):,.0f} drained/s", f"{median(sync):,.0f} synchronous/s"
    return [Figure("async_drain_vs_sync", value, ours, peer)]


def _accept(folder: Path, key: str, durability: str) -> Figure:
    with serving(folder, "--proxies", "1", "--workers", "0", "--async-durability", durability) as platform:
        platform.deploy("hello", HELLO)
        accepted, published = [], []
        for _ in range(_ROUNDS):
            published.append(asyncio.run(_publish(_broker_file(platform))))
            accepted.append(_wrk(folder, platform.url + "/async-function/hello"))
    value = median(ours / peer for ours, peer in zip(accepted, published, strict=True))
    return Figure(key, value, f"{median(accepted):,.0f} accepted/s", f"{median(published):,.0f} nats-py publishes/s")


async def _publish(broker_file: Path) -> float:
    """Acknowledged publishes a second of nats-py, with as many in flight as wrk has connections."""
    client = await connect(read_settings(broker_file), "bench")
    stream = {"name": "bench", "subjects": ["bench.>"], "storage": "file", "num_replicas": 1}
    await client.request("$JS.API.STREAM.CREATE.bench", json.dumps(stream).encode())
    acknowledged, sent, heard = 0, 0, asyncio.Event()

    async def take(message: Any) -> None:
        nonlocal acknowledged
        acknowledged += 1
        heard.set()

    inbox = client.new_inbox()
    await client.subscribe(f"{inbox}.*", cb=take, pending_msgs_limit=-1)
    payload, begun = b"x" * _PAYLOAD, time.monotonic()
    while time.monotonic() - begun < _SECONDS:
        while sent - acknowledged >= _IN_FLIGHT:
            heard.clear()
            await heard.wait()
        sent += 1
        await client.publish(f"bench.{sent}", payload, reply=f"{inbox}.{sent}", headers={"Nats-Msg-Id": str(sent)})
    rate = acknowledged / (time.monotonic() - begun)
    await client.request("$JS.API.STREAM.DELETE.bench", b"")
    await client.close()
    return rate


def _wrk(folder: Path, url: str) -> float:
    script = folder / "post.lua"
    script.write_text(_LUA)
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{_IN_FLIGHT}", f"-d{_SECONDS}", "-s", str(script)]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=60, check=False)
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("Requests/sec")]
    if not found or "Non-2xx" in done.stdout:
        raise BenchError(f"wrk on {url} failed: {done.stdout}{done.stderr}")
    return float(found[0])


def _drain(platform: Serving) -> float:
    """Calls a second until none waits."""
    before, begun = _waiting(platform), time.monotonic()
    while (left := _waiting(platform)) and time.monotonic() - begun < 60:
        time.sleep(0.05)
    return (before - left) / (time.monotonic() - begun)


def _waiting(platform: Serving) -> int:
    async def ask() -> int:
        client = await connect(read_settings(_broker_file(platform)), "bench")
        answer = await client.request("$JS.API.STREAM.INFO.stoker-calls", timeout=5)
        await client.close()
        return int(json.loads(answer.data)["state"]["messages"])

    return asyncio.run(ask())


def _broker_file(platform: Serving) -> Path:
    return Path(_settings(platform, "stoker_gateway.control")["run_dir"]) / "broker.json"


def _worker(platform: Serving) -> int:
    return int(_find(platform, "stoker_gateway.queue.worker")[0])


def _settings(platform: Serving, module: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_find(platform, module)[1])
    return found


def _find(platform: Serving, module: str) -> tuple[str, str]:
    """The pid and the last argument of the platform's process that runs this module."""
    for pid in Path(f"/proc/{platform.pid}/task/{platform.pid}/children").read_text().split():
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if module in line:
            return pid, line[-2]
    raise BenchError(f"there is no process that runs {module}")
