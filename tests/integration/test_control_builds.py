"""`/system/builds` over a real socket, with a small real program in the builder's place."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from control_harness import Control, assert_error, running_control, until

from stoker_gateway.control.build_process import Builders

FAKE = Path(__file__).with_name("fake_builder.py")
HEADERS = {"Content-Type": "application/x-tar"}


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    folder = tmp_path / "traces"
    folder.mkdir()
    return folder


def building(tmp_path: Path, traces: Path, **settings: Any) -> AbstractAsyncContextManager[Control]:
    command = (sys.executable, str(FAKE), str(traces))
    every: dict[str, Any] = {"build_command": command, "build_grace": 0.5} | settings
    return running_control(tmp_path, **every)


async def build(control: Control, upload: Any) -> list[dict[str, Any]]:
    async with control.client.post("/system/builds", data=upload, headers=HEADERS) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "application/x-ndjson"
        return [json.loads(line) for line in (await response.text()).splitlines()]


async def pieces(first: bytes, count: int, size: int = 65536) -> AsyncIterator[bytes]:
    yield first
    for _ in range(count):
        yield b"x" * size


def started(traces: Path) -> list[Path]:
    return list(traces.glob("started-*"))


def is_alive(pid: int) -> bool:
    try:
        # A killed orphan can stay a zombie where nobody reaps it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_gone(traces: Path) -> bool:
    pids = [int(path.name.partition("-")[2]) for path in started(traces)]
    pids += [int(path.read_text()) for path in traces.glob("child")]
    return not any(is_alive(pid) for pid in pids)


async def test_the_upload_reaches_the_builder_whole_and_its_lines_the_client(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces) as control:
        lines = await build(control, pieces(b"count\n", 300))
    assert lines[:2] == [{"log": "reading"}, {"log": f"read {300 * 65536} bytes"}]
    assert lines[2]["image"].startswith("stoker.local/x@sha256:") and lines[2]["cached"] is False
    assert len(lines) == 3


async def test_lines_arrive_while_the_build_runs(tmp_path: Path, traces: Path) -> None:
    async with (
        building(tmp_path, traces) as control,
        control.client.post("/system/builds", data=b"gate\n") as response,
    ):
        first = await asyncio.wait_for(response.content.readline(), 10)
        assert json.loads(first) == {"log": "at the gate"}
        (traces / "open").touch()
        assert b"image" in await response.read()


async def test_an_error_of_the_builder_is_passed_on_and_ends_the_answer(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces) as control:
        assert await build(control, b"refuse\n") == [{"error": "the handler has no handle()", "code": "bad-input"}]


async def test_a_builder_that_ends_before_the_upload_still_gets_its_word_to_the_client(
    tmp_path: Path, traces: Path
) -> None:
    async with building(tmp_path, traces) as control:
        lines = await build(control, pieces(b"refuse\n", 400))
    assert lines[-1]["code"] == "bad-input"


@pytest.mark.parametrize("order", [b"crash\n", b"silent\n"])
async def test_a_builder_without_a_result_is_a_last_line_that_says_so(
    tmp_path: Path, traces: Path, order: bytes
) -> None:
    async with (
        building(tmp_path, traces) as control,
        control.client.post("/system/builds", data=order) as response,
    ):
        text = await response.text()
    assert "without a result" in text
    if order == b"crash\n":
        lines = [json.loads(line) for line in text.splitlines()]
        assert lines[0] == {"log": "before"}
        assert lines[-1]["code"] == "internal" and "-9" in lines[-1]["error"]
    else:
        assert (response.status, response.headers["X-Stoker-Error"]) == (500, "platform; internal")


async def test_what_is_no_line_of_ours_is_log(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces) as control:
        lines = await build(control, b"chatter\n")
    assert lines[:2] == [{"log": "not json"}, {"log": "[1, 2]"}]
    assert "1 MiB" in lines[2]["log"]
    assert "image" in lines[-1]


async def test_an_upload_beyond_the_limit_is_too_large_announced_or_not(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces, upload_limit=100_000) as control:
        for upload in (b"count\n" + b"x" * 200_000, pieces(b"silent\n", 4)):
            async with control.client.post("/system/builds", data=upload) as response:
                await assert_error(response, 413, "too-large", "100000")
    assert all_gone(traces)


async def test_an_upload_that_grows_too_large_after_the_first_line_ends_with_an_error_line(
    tmp_path: Path, traces: Path
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"count\n"
        await until(lambda: bool(started(traces)))
        yield b"x"
        async for piece in pieces(b"", 4):
            yield piece

    async with (
        building(tmp_path, traces, upload_limit=100_000) as control,
        control.client.post("/system/builds", data=slow()) as response,
    ):
        text = await response.text()
    # Whether the log line was first is a race; either way the client is told, and nothing looks complete.
    assert "100000 bytes" in text and "image" not in text
    assert all_gone(traces)


async def test_an_upload_that_stalls_gives_up_its_place(tmp_path: Path, traces: Path) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"silent\n"
        await asyncio.sleep(30)

    async with (
        building(tmp_path, traces, upload_idle=0.1) as control,
        control.client.post("/system/builds", data=stalled()) as response,
    ):
        await assert_error(response, 408, "too-slow")
    assert all_gone(traces)


async def test_builds_beyond_the_limit_wait_in_line_and_are_told(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces, builds_at_once=1) as control:
        first = await control.client.post("/system/builds", data=b"gate\n")
        second = asyncio.create_task(build(control, b"gate\n"))
        third = await control.client.post("/system/builds", data=b"gate\n")
        assert "waiting" in json.loads(await third.content.readline())["log"]
        assert len(started(traces)) == 1
        third.close()
        (traces / "open").touch()
        assert b"image" in await first.read()
        lines = await second
        assert "waiting" in lines[0]["log"] and "image" in lines[-1]
        # The one who left the line does not hold it up, and is never built.
        assert "image" in (await build(control, b"gate\n"))[-1]
    assert len(started(traces)) == 3


async def test_a_client_that_leaves_ends_the_builder_and_its_children(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces) as control:
        response = await control.client.post("/system/builds", data=b"hang\n")
        await until(lambda: (traces / "child").exists())
        assert not all_gone(traces)
        response.close()
        await until(lambda: all_gone(traces))
        (traces / "open").touch()
        assert "image" in (await build(control, b"gate\n"))[-1], "its place is free again"


async def test_a_stop_of_the_platform_ends_the_builder_and_its_children(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces) as control:
        response = await control.client.post("/system/builds", data=b"hang\n")
        await until(lambda: (traces / "child").exists())
    await until(lambda: all_gone(traces))  # a killed process takes a moment to go on a busy machine
    response.close()


async def test_what_the_builder_leaves_running_is_ended_with_it(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces) as control:
        assert "image" in (await build(control, b"leave\n"))[-1]
        await until(lambda: all_gone(traces))


async def test_a_build_that_takes_too_long_is_stopped_and_says_so(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces, build_timeout=0.5) as control:
        lines = await build(control, b"hang\n")
    assert "0.5 seconds" in lines[-1]["error"]
    await until(lambda: all_gone(traces))


async def test_a_platform_without_a_builder_says_so(tmp_path: Path) -> None:
    async with (
        running_control(tmp_path) as control,
        control.client.post("/system/builds", data=b"x") as response,
    ):
        await assert_error(response, 503, "unavailable", "builds nothing")


async def test_a_builder_that_cannot_be_started_is_unavailable(tmp_path: Path) -> None:
    async with (
        running_control(tmp_path, build_command=("/nowhere/builder",)) as control,
        control.client.post("/system/builds", data=b"x") as response,
    ):
        await assert_error(response, 503, "unavailable", "/nowhere/builder")


async def test_a_builder_that_was_started_ahead_is_used_once_and_then_comes_the_next(
    tmp_path: Path, traces: Path
) -> None:
    async with building(tmp_path, traces, build_ahead=True) as control:
        for number in (1, 2, 3):
            await until(lambda number=number: len(started(traces)) == number)
            assert "image" in (await build(control, b"count\n"))[-1]
            assert len(started(traces)) == number, "the one that waited was used"
        await until(lambda: len(started(traces)) == 4)
    assert all_gone(traces), "the one that waited ends with the platform"


async def test_a_builder_gives_way_to_what_serves_from_its_start_on(traces: Path) -> None:
    builders = Builders((sys.executable, str(FAKE), str(traces)), 1.0, ahead=False)
    builder = await builders.take()
    await until(lambda: len(started(traces)) == 1)
    assert os.getpriority(os.PRIO_PROCESS, int(started(traces)[0].name.partition("-")[2])) == 10
    await builder.end(1.0)
    await builders.close()


async def test_builds_that_come_faster_than_builders_get_fresh_ones(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces, build_ahead=True, builds_at_once=3) as control:
        answers = await asyncio.gather(*(build(control, b"count\n") for _ in range(3)))
    assert all("image" in lines[-1] for lines in answers)
    assert all_gone(traces)


async def test_a_waiting_builder_that_has_died_costs_no_build(tmp_path: Path, traces: Path) -> None:
    async with building(tmp_path, traces, build_ahead=True) as control:
        await until(lambda: len(started(traces)) == 1)
        os.kill(int(started(traces)[0].name.partition("-")[2]), signal.SIGKILL)
        await until(lambda: all_gone(traces))
        assert "image" in (await build(control, b"count\n"))[-1]


async def test_a_builder_that_has_waited_too_long_is_ended_and_not_used(traces: Path) -> None:
    builders = Builders((sys.executable, str(FAKE), str(traces)), 1.0, ahead=True, longest_wait=0.0)
    builders.refill()
    await until(lambda: len(started(traces)) == 1)
    await until(lambda: not asyncio.all_tasks() - {asyncio.current_task()})  # it is ours now
    fresh = await builders.take()
    assert fresh.is_running
    await until(lambda: len(started(traces)) == 2)
    await fresh.end(1.0)
    await builders.close()
    assert all_gone(traces)


async def test_after_a_build_the_next_builder_waits_for_a_while(traces: Path) -> None:
    builders = Builders((sys.executable, str(FAKE), str(traces)), 1.0, ahead=False, kept=1.0)
    builders.open()
    builders.refill()
    await until(lambda: len(started(traces)) == 1)
    await until(lambda: all_gone(traces))
    fresh = await builders.take()
    await until(lambda: len(started(traces)) == 2)
    await fresh.end(1.0)
    await builders.close()
    assert all_gone(traces)
