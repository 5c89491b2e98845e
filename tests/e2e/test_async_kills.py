"""`kill -9` of everything, again and again, under async calls: what got 202 ends once, and what has ended runs no more.

`STOKER_ASYNC_CALLS` (1,000) is how many calls are made; the full test has 10,000, and takes some minutes. The
kills are as many, spread over the calls.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from recorded_calls import NAME, Senders, begins, deploy_recorder, ended_calls, none_is_open, run_after_their_end
from running_platform import Platform, wait_for

from stoker_sdk.errors import StokerError

CALLS = int(os.environ.get("STOKER_ASYNC_CALLS", "1000"))
KILLS = 25
DRAIN_SECONDS = 60 + CALLS / 50
ROLES = ("proxy 0", "proxy 1", "control", "worker 0", "broker", "replica")


def kill_at_random(platform: Platform, chance: random.Random) -> str:
    role = chance.choice(ROLES)
    try:
        pid = chance.choice(platform.replicas(NAME)) if role == "replica" else platform.pids()[role]
        os.kill(pid, signal.SIGKILL)
    except (StokerError, ProcessLookupError, KeyError, IndexError):
        return ""  # it is just being started again
    return role


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_accepted_call_ends_once_through_kills_of_everything(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(proxies=2, flags=("--worker-lost-after", "3s"))
    record = Path(platform.folder) / "record"
    deploy_recorder(platform, record, replicas=2)
    chance = random.Random(os.environ.get("STOKER_SEED", "4"))
    senders = Senders(platform, CALLS)
    killed: Counter[str] = Counter()
    begin = time.monotonic()
    with senders.sending():
        while killed.total() < KILLS:
            threading.Event().wait(chance.uniform(0.1, 0.8))
            if len(senders.accepted) < CALLS * killed.total() / KILLS:
                continue
            if role := kill_at_random(platform, chance):
                killed[role] += 1
    sent = time.monotonic()
    wait_for(lambda: none_is_open(platform), "the last call to end", DRAIN_SECONDS)
    drained = time.monotonic()
    outcomes = ended_calls(platform)
    begun = begins(record)
    lost = [id for id in senders.accepted if id not in outcomes]
    more = [id for id, times in begun.items() if len(times) > 1]
    late = run_after_their_end(begun, outcomes)
    states = dict(Counter(one.state for one in outcomes.values()))
    print(f"{len(senders.accepted)} accepted in {sent - begin:.0f} s, the last ended {drained - sent:.0f} s later")
    print(f"{killed.total()} kills {dict(killed)}, answers {dict(senders.answers)}")
    print(f"{states}, lost: {len(lost)}, run more than once: {len(more)}, of these after their end: {len(late)}")
    assert not lost
    assert len(set(senders.accepted)) == len(senders.accepted)
    assert {outcomes[id].state for id in senders.accepted} <= {"done", "dead"}
    assert all(id in begun for id in senders.accepted if outcomes[id].state == "done")
    assert not late, {id: (begun[id], outcomes[id]) for id in late}
