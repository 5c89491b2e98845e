"""Async calls with known ids to a function that records each of its executions durably, for tests that kill things.

deploy_recorder(platform, record, replicas=2)
senders = Senders(platform, 10_000)
with senders.sending():         # 8 threads, until so many got 202 and the block has ended
    ...                         # kill
wait_for(lambda: none_is_open(platform), "the last call to end")
ended_calls(platform); begins(record)
"""

from __future__ import annotations

import http.client
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from running_platform import Platform

from stoker_sdk.errors import StokerError
from stoker_sdk.messages import CallStatus

NAME = "recorded"
_THREADS = 8
_HANDLER = """
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


def deploy_recorder(platform: Platform, record: Path, replicas: int) -> None:
    record.touch()
    record.chmod(0o666)
    platform.deploy(NAME, _HANDLER, env_vars={"record": str(record)})
    platform.scale(NAME, replicas)


def begins(record: Path) -> dict[str, list[float]]:
    """When each call was begun (Unix, s), by id."""
    begun: dict[str, list[float]] = {}
    for line in record.read_text().splitlines():
        word, id, at = line.split()
        if word == "begun":
            begun.setdefault(id, []).append(float(at))
    return begun


class Senders:
    """Threads that send calls until `number` got 202, and remember their ids. What broke off counts for nothing."""

    def __init__(self, platform: Platform, number: int) -> None:
        self.platform = platform
        self.number = number
        self.accepted: list[str] = []
        self.answers: Counter[int] = Counter()
        self._going_on = False

    @contextmanager
    def sending(self) -> Iterator[None]:
        self._going_on = True
        with ThreadPoolExecutor(_THREADS) as pool:
            running = [pool.submit(self._run) for _ in range(_THREADS)]
            try:
                yield
            finally:
                self._going_on = False
            for one in running:
                one.result()

    def stop(self) -> None:
        """Nothing answers any more: send no further calls, however many are missing."""
        self._going_on, self.number = False, 0

    def _run(self) -> None:
        while self._going_on or len(self.accepted) < self.number:
            try:
                answer = self.platform.call_later(NAME, b"x" * random.randrange(2000))
            except (OSError, http.client.HTTPException):
                self.answers[0] += 1
                time.sleep(0.05)
                continue
            self.answers[answer.status] += 1
            if answer.status == 202:
                self.accepted.append(answer.headers["x-call-id"])
            # Spread over what the test does, and no more than is asked for by much.
            time.sleep(0.02 if len(self.accepted) < self.number else 0.3)


def none_is_open(platform: Platform) -> bool:
    """Whether every call has ended; False too while control or broker is being started again."""
    try:
        return not any(platform.client.calls(NAME, state=state, limit=1) for state in ("queued", "running", "retrying"))
    except StokerError:
        return False


def ended_calls(platform: Platform, state: str = "") -> dict[str, CallStatus]:
    """All that are listed, by id. While calls are still open, ask for a state: a call may end between two pages."""
    found: dict[str, CallStatus] = {}
    after = ""
    while page := platform.client.calls(NAME, state=state, after=after, limit=1000):
        for status in page:
            assert status.id not in found, f"two outcomes of {status.id}"
            found[status.id] = status
        after = page[-1].cursor
    return found


def run_after_their_end(begun: dict[str, list[float]], outcomes: dict[str, CallStatus]) -> list[str]:
    """Ids of calls that ran once more when they had ended."""
    slack = 0.01  # the clock of the outcome has milliseconds
    return [id for id, times in begun.items() if id in outcomes and max(times) > _seconds(outcomes[id]) + slack]


def _seconds(status: CallStatus) -> float:
    return datetime.fromisoformat(status.ended_at).timestamp()
