"""`kill -9` of everything, again and again, under async calls: what got 202 ends once, and what has ended runs no more.

`STOKER_ASYNC_CALLS` (1,000) is how many calls are made; the full test has 10,000.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from running_platform import Platform, wait_for

from stoker_sdk.errors import StokerError
from stoker_sdk.messages import CallStatus

CALLS = int(os.environ.get("STOKER_ASYNC_CALLS", "1000"))
KILLS = 20
ROLES = ("proxy 0", "proxy 1", "control", "worker 0", "broker", "replica")
HANDLER = """
import os, time

def record(word, id):
    fd = os.open(os.environ["record"], os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"{word} {id} {time.time()}\\n".encode())
    os.fsync(fd)
    os.close(fd)

def handle(event, context):
    id = event.headers.get("X-Call-Id")
    record("begun", id)
    time.sleep(0.005)
    record("ended", id)
    return "ok"
"""


class Senders:
    """Threads that send calls until `CALLS` got 202, and remember their ids. What broke off counts for nothing."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.accepted: list[str] = []
        self.answers: Counter[int] = Counter()
        self.killing = True

    def run(self) -> None:
        while self.killing or len(self.accepted) < CALLS:
            try:
                answer = self.platform.call_later("recorded", b"x" * random.randrange(2000))
            except (OSError, http.client.HTTPException):
                self.answers[0] += 1
                time.sleep(0.05)
                continue
            self.answers[answer.status] += 1
            if answer.status == 202:
                self.accepted.append(answer.headers["x-call-id"])
            # Spread over the kills, and no more than is asked for by much.
            time.sleep(0.02 if len(self.accepted) < CALLS else 0.3)


def kill_at_random(platform: Platform, chance: random.Random) -> str:
    role = chance.choice(ROLES)
    try:
        pid = chance.choice(platform.replicas("recorded")) if role == "replica" else platform.pids()[role]
        os.kill(pid, signal.SIGKILL)
    except (StokerError, ProcessLookupError, KeyError, IndexError):
        return ""  # it is just being started again
    return role


def waiting(platform: Platform) -> list[CallStatus] | None:
    try:
        return platform.client.calls("recorded", state="queued", limit=1) + [
            *platform.client.calls("recorded", state="running", limit=1),
            *platform.client.calls("recorded", state="retrying", limit=1),
        ]
    except StokerError:
        return None


def ended(platform: Platform) -> dict[str, CallStatus]:
    found: dict[str, CallStatus] = {}
    after = ""
    while page := platform.client.calls("recorded", after=after, limit=1000):
        for status in page:
            assert status.id not in found, f"two outcomes of {status.id}"
            found[status.id] = status
        after = page[-1].cursor
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_accepted_call_ends_once_through_kills_of_everything(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(proxies=2, flags=("--worker-lost-after", "3s"))
    record = Path(platform.folder) / "record"
    record.touch()
    record.chmod(0o666)
    platform.deploy("recorded", HANDLER, env_vars={"record": str(record)})
    platform.scale("recorded", 2)
    chance = random.Random(os.environ.get("STOKER_SEED", "4"))
    senders = Senders(platform)
    killed: Counter[str] = Counter()
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(senders.run) for _ in range(8)]
        try:
            while killed.total() < KILLS or len(senders.accepted) < CALLS:
                threading.Event().wait(chance.uniform(0.1, 0.8))
                if role := kill_at_random(platform, chance):
                    killed[role] += 1
        finally:
            senders.killing = False
        for one in running:
            one.result()
    wait_for(lambda: waiting(platform) == [], "the last call to end", 120)
    outcomes = ended(platform)
    begun: dict[str, list[float]] = {}
    for line in record.read_text().splitlines():
        word, id, at = line.split()
        if word == "begun":
            begun.setdefault(id, []).append(float(at))
    lost = [id for id in senders.accepted if id not in outcomes]
    more = {id: times for id, times in begun.items() if len(times) > 1}
    late = [id for id, times in more.items() if max(times) > seconds(outcomes[id].ended_at) + 0.01]
    print(f"{len(senders.accepted)} accepted, kills {dict(killed)}, answers {dict(senders.answers)}")
    print(
        f"states {Counter(one.state for one in outcomes.values())}, run more than once: {len(more)}, late {len(late)}"
    )
    assert not lost
    assert len(set(senders.accepted)) == len(senders.accepted)
    assert {outcomes[id].state for id in senders.accepted} <= {"done", "dead"}
    assert all(id in begun for id in senders.accepted if outcomes[id].state == "done")
    assert not late, {id: (begun[id], outcomes[id]) for id in late}


def seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
