"""A large backlog of async calls: memory stays flat, lists stay quick, and draining goes on after a restart.

`STOKER_BACKLOG` (10,000) is how many calls are stored; the full test has 100,000, and takes some minutes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from running_platform import Platform, wait_for

from stoker_sdk.messages import CallStatus

BACKLOG = int(os.environ.get("STOKER_BACKLOG", "10000"))
CONNECTIONS = 32
ROLES = ("proxy 0", "control", "worker 0", "broker")
GROWTH = 20 * 1024 * 1024
LISTED_SECONDS = 0.3
MIB = 1024 * 1024
HANDLER = """
import os, time

counter = os.open(os.environ["counter"], os.O_WRONLY | os.O_APPEND)

def handle(event, context):
    if os.path.exists(os.environ["counter"] + ".slow"):
        time.sleep(0.5)
    os.write(counter, b".")
    return "ok"
"""
FAILS = "def handle(event, context):\n    return {'statusCode': 503, 'body': 'no luck'}\n"


@dataclass
class Watched:
    """A platform, the proportional set size (bytes) of its processes, and how many calls have run, over time."""

    platform: Platform
    counter: Path
    first: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    progress: list[tuple[float, int]] = field(default_factory=list)

    @property
    def executed(self) -> int:
        return self.counter.stat().st_size

    @property
    def seen(self) -> int:
        """How many had run when it was looked at last."""
        return self.progress[-1][1] if self.progress else 0

    def weigh(self) -> None:
        for role, pid in self.platform.pids().items():
            if role in ROLES and (size := proportional_size(pid)):
                self.first.setdefault(role, size)
                self.most[role] = max(size, self.most.get(role, 0))
                self.last[role] = size

    @contextmanager
    def watching(self, *, weighing: bool = True) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.02):
                self.progress.append((time.monotonic(), self.executed))
                if weighing and len(self.progress) % 25 == 0:
                    self.weigh()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def rate(self, begin: int, end: int) -> float:
        """Calls a second, while the number of those that have run went from `begin` to `end`."""
        times = [next(at for at, number in self.progress if number >= wanted) for wanted in (begin, end)]
        return (end - begin) / (times[1] - times[0])

    def say(self, when: str) -> None:
        sizes = ", ".join(
            f"{role} {self.first[role] / MIB:.1f} → {self.most[role] / MIB:.1f} (now {self.last[role] / MIB:.1f})"
            for role in ROLES
        )
        print(f"{when}, MiB at first → at most: {sizes}")

    def assert_flat(self) -> None:
        grown = {role: self.most[role] - self.first[role] for role in ROLES if role != "broker"}
        assert max(grown.values()) < GROWTH, grown


def proportional_size(pid: int) -> int:
    """0 for a process that has just gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def store(address: tuple[str, int], name: str, number: int) -> None:
    """So many async calls on a few connections; every one must get 202."""
    asyncio.run(_store(address, name, number))


async def _store(address: tuple[str, int], name: str, number: int) -> None:
    request = f"POST /async-function/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode() + b"x" * 100
    left = iter(range(number))

    async def send() -> None:
        reader, writer = await asyncio.open_connection(*address)
        for _ in left:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202 "), head
        writer.close()

    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))


def time_lists(platform: Platform, when: str) -> None:
    """Every kind of list answers quickly: the median of five does, as others use the machine too."""

    def page(**filters: object) -> list[CallStatus]:
        return platform.client.calls(**filters)  # type: ignore[arg-type]

    stage = "o" if when == "ended" else "c"
    kinds: dict[str, Callable[[], list[CallStatus]]] = {
        "all": lambda: page(),
        "of the function": lambda: page(function="backlog"),
        "of a function without": lambda: page(function="other"),
        "page of 500": lambda: page(function="backlog", limit=500),
        "page in the middle": lambda: page(after=f"{stage}:{BACKLOG // 2}"),
        "page at the end": lambda: page(function="backlog", after=f"{stage}:{BACKLOG - 60}"),
        **{
            state: lambda state=state: page(function="backlog", state=state)  # type: ignore[misc]
            for state in ("queued", "running", "retrying", "done", "dead", "cancelled")
        },
        "dead, of all": lambda: page(state="dead"),
        "retrying, of all": lambda: page(state="retrying"),
    }
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind, ask in kinds.items():
        for _ in range(5):
            began = time.monotonic()
            ask()
            took[kind].append(time.monotonic() - began)
    milliseconds = {kind: [round(1000 * seconds) for seconds in sorted(times)] for kind, times in took.items()}
    print(f"lists while calls are {when}, ms, median and most: { {k: (m[2], m[4]) for k, m in milliseconds.items()} }")
    if when == "ended":
        del milliseconds["cancelled"]  # there is no way to them but through all that have ended
    slow = {kind: times for kind, times in milliseconds.items() if times[2] > 1000 * LISTED_SECONDS}
    assert not slow


def time_command(platform: Platform, *arguments: str) -> float:
    command = [sys.executable, "-m", "stoker_cli", *arguments]
    began = time.monotonic()
    subprocess.run(command, env=platform.environment, check=True, capture_output=True, timeout=120)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_backlog_costs_no_memory_and_no_time(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(proxies=1)
    counter = Path(platform.folder) / "counter"
    slow = Path(f"{counter}.slow")
    counter.touch()
    counter.chmod(0o666)
    platform.deploy("backlog", HANDLER, env_vars={"counter": str(counter)}, annotations={"stoker.dev/concurrency": "8"})
    platform.deploy("other", FAILS, annotations={"stoker.dev/retries": '{"max":0}'})
    store(platform.http, "other", 5)
    store(platform.http, "backlog", 200)
    wait_for(lambda: counter.stat().st_size == 200, "the first calls")
    platform.client.calls()
    watched = Watched(platform, counter)
    watched.weigh()
    slow.touch()
    with watched.watching():
        began = time.monotonic()
        store(platform.http, "backlog", BACKLOG)
        print(f"{BACKLOG} calls accepted, {BACKLOG / (time.monotonic() - began):.0f}/s")
        time_lists(platform, "queued")
        for command in (["calls", "list", "backlog", "-g", platform.http_url], ["version"]):
            print(f"`stoker {command[0]}` takes {time_command(platform, *command) * 1000:.0f} ms")
        watched.say("with the backlog")
        slow.unlink()
        begin, half = watched.executed, (watched.executed + BACKLOG) // 2
        wait_for(lambda: watched.seen >= half, "half of the calls", 300)
        watched.say("half drained")
        watched.assert_flat()
    before = watched.rate(begin + (half - begin) // 4, half)
    platform.stop()
    stopped = watched.executed
    watched.progress.clear()
    restarted = time.monotonic()
    with watched.watching(weighing=False):
        platform.start()
        wait_for(lambda: watched.seen >= BACKLOG + 200, "the last call", 300)
    first = next(at for at, number in watched.progress if number > stopped)
    rest = BACKLOG + 200 - stopped
    after = watched.rate(stopped + rest // 4, stopped + 3 * rest // 4)
    print(f"drained {before:.0f}/s, after a restart {after:.0f}/s; its first call came after {first - restarted:.1f} s")
    watched.weigh()
    wait_for(lambda: not platform.client.calls("backlog", state="queued", limit=1), "the last outcome")
    watched.say("drained")
    watched.assert_flat()
    time_lists(platform, "ended")
    assert watched.executed == BACKLOG + 200, "a call has run twice"
    assert after > 0.5 * before  # each call is looked up first, as it may have run before
