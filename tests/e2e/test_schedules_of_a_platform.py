"""Schedules on a whole platform: the clock calls, through broker, worker and proxy, once for each tick."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_platform import Platform, wait_for

from stoker_sdk.errors import BadInput
from stoker_sdk.units import parse_rfc3339

RECORDER = """
import os

def handle(event, context):
    line = "\\t".join([event.headers.get("X-Stoker-Tick", ""), event.path, event.body.decode(), event.method])
    with open({file!r}, "a") as file:
        file.write(line + "\\n")
    return "ok"
"""

pytestmark = pytest.mark.slow


class Record:
    """What the function wrote down: one line for each run."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o711)
        self.file = folder / "runs"
        self.file.touch()
        self.file.chmod(0o666)

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.file.read_text().splitlines()]

    @property
    def seconds(self) -> list[int]:
        return [int(parse_rfc3339(line[0]).timestamp()) for line in self.lines]


@pytest.fixture
def record() -> Iterator[Record]:
    with tempfile.TemporaryDirectory(prefix="stoker-ticks-") as folder:
        yield Record(Path(folder))


def deploy(platform: Platform, name: str, record: Record, **annotations: str) -> None:
    handler = {"handler.py": RECORDER.format(file=str(record.file))}
    platform.deploy(name, handler, lang="python3-http", annotations=annotations)


def wait_until_all_have_ended(platform: Platform, name: str) -> None:
    ended = ("done", "dead", "cancelled")
    wait_for(lambda: all(call.state in ended for call in platform.client.calls(name, limit=1000)), "the last calls")


def test_each_tick_runs_once_through_kills_of_control(own_platform: Platform, record: Record) -> None:
    platform = own_platform
    schedule = json.dumps([{"cron": "@every 1s", "path": "/tick", "body": "hello"}])
    deploy(platform, "ticker", record, **{"stoker.dev/schedule": schedule})
    wait_for(lambda: len(record.lines) >= 2, "the first ticks", 20)
    for _ in range(3):
        before = len(record.lines)
        platform.kill("control")
        wait_for(lambda before=before: len(record.lines) >= before + 2, "ticks after a kill", 30)
    platform.client.remove("ticker")
    wait_until_all_have_ended(platform, "ticker")
    seconds = record.seconds
    assert Counter(seconds) == Counter(range(seconds[0], seconds[0] + len(seconds)))
    assert {tuple(line[1:]) for line in record.lines} == {("/tick", "hello", "POST")}


def test_a_function_at_zero_is_woken_by_its_schedule_and_a_removed_one_is_left_alone(
    platform: Platform, record: Record
) -> None:
    deploy(platform, "sleeper", record, topic="cron-function", schedule="@every 1s;@every 2s")
    platform.client.scale("sleeper", 0)
    wait_for(lambda: len(record.lines) >= 3, "ticks", 20)
    platform.client.remove("sleeper")
    wait_until_all_have_ended(platform, "sleeper")
    calls = len(platform.client.calls("sleeper", limit=1000))
    deploy(platform, "witness", record, topic="cron-function", schedule="@every 1s")
    runs = len(record.lines)
    wait_for(lambda: len(record.lines) >= runs + 3, "ticks of another function", 20)
    platform.client.remove("witness")
    assert len(platform.client.calls("sleeper", limit=1000)) == calls


def test_a_bad_schedule_is_refused_at_the_deploy(platform: Platform, record: Record) -> None:
    with pytest.raises(BadInput, match="schedule 'soon' is not five fields"):
        deploy(platform, "never", record, topic="cron-function", schedule="* * * * *;soon")
