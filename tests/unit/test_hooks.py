"""The optional functions of a handler: which shapes are taken, what `health` means, and how often it is asked."""

from __future__ import annotations

import asyncio
import time
from types import ModuleType
from typing import Any

import pytest

from stoker_watchdog.front import Front
from stoker_watchdog.handler import Handler
from stoker_watchdog.health import HealthWatch
from stoker_watchdog.hooks import BadHook, find_hook
from stoker_watchdog.logs import LogFile, LogStream
from stoker_watchdog.python_runner import PythonRunner
from stoker_watchdog.settings import Settings


def module(code: str) -> ModuleType:
    made = ModuleType("hooked")
    exec(code, made.__dict__)
    return made


def runner(code: str) -> PythonRunner:
    made = module(f"import asyncio, sys, threading, time\n{code}")
    hooks = [find_hook(made, name) for name in ("init", "health", "close")]
    return PythonRunner(SETTINGS, Handler(str, False, False, *hooks), asyncio.get_running_loop())


SETTINGS = Settings("r", "greet", "openfaas-fn", connections=4, health_period=0.01, health_timeout=0.05)


@pytest.mark.parametrize(
    "code",
    [
        "def init(): return 4",
        "def init(context): return context.connections",
        "def init(context=None): return context.connections",
        "def init(*arguments): return 4 + len(arguments)",
        "def init(size=4): return size",
        "def init(*, size=4): return size",
        "async def init(): return 4",
        "async def init(context): return context.connections",
        "async def later(context): return context.connections\ndef init(context): return later(context)",
        "import functools\ndef plain(f):\n  @functools.wraps(f)\n  def g(*a): return f(*a)\n  return g\n"
        "@plain\ndef init(context): return context.connections",
    ],
)
async def test_init_takes_nothing_or_the_context_and_its_result_is_the_state(code: str) -> None:
    made = runner(code)
    await made.open()
    assert made.facts.state == 4


@pytest.mark.parametrize("code", ["def close(a, b): ...", "async def close(a, b): ...", "def close(*, pool): ..."])
def test_a_hook_that_takes_more_is_refused_with_its_name(code: str) -> None:
    with pytest.raises(BadHook, match=r"`close` takes [12] arguments: define close\(\) or close\(context\)"):
        find_hook(module(code), "close")


@pytest.mark.parametrize("code", ["", "health = 1", "health = str", "from inspect import unwrap as health"])
def test_what_the_module_does_not_define_itself_is_no_hook(code: str) -> None:
    assert find_hook(module(code), "health") is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def health(): pass", ""),
        ("def health(): return True", ""),
        ("def health(): return 'fine'", ""),
        ("async def health(): return 1", ""),
        ("def health(context): return context.connections == 4", ""),
        ("def health(): return False", "`health` returned False"),
        ("async def health(): return []", "`health` returned []"),
        ("def health(): return ''", "`health` returned ''"),
        ("def health(): raise OSError('no database')", "`health` raised OSError: no database"),
        ("async def health(): raise OSError('no database')", "`health` raised OSError: no database"),
        ("def health(): sys.exit(1)", "`health` raised SystemExit: 1"),
        ("async def health(): sys.exit(1)", "`health` raised SystemExit: 1"),
        ("class Odd:\n def __bool__(self): raise ValueError('odd')\ndef health(): return Odd()", "`health` raised Val"),
    ],
)
async def test_health_is_bad_for_what_is_empty_and_what_is_raised(code: str, reason: str) -> None:
    found = await runner(code).health()
    assert found.startswith(reason) if reason else found == ""


class Watched:
    """A runner under a watch, with what was told of it."""

    def __init__(self, code: str, **settings: Any) -> None:
        self.runner = runner(code)
        values = {"health_period": 0.01, "health_timeout": 0.05} | settings
        self.settings = Settings("r", "greet", "openfaas-fn", **values)
        self.front = Front(self.settings, self.runner, LogStream(LogFile("")))
        self.told: list[str] = []
        self.watch = HealthWatch(self.settings, self.runner, self.front, self.told.append)
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watched:
        await self.watch.first()
        self.task = asyncio.ensure_future(self.watch.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None and not self.task.done()
        self.task.cancel()
        self.front.stop()

    async def until_told(self, *told: str) -> None:
        async with asyncio.timeout(5):
            while len(self.told) < len(told):
                await asyncio.sleep(0.005)
        for have, want in zip(self.told, told, strict=True):
            assert have.startswith(want) and bool(have) == bool(want)


ANSWERS = "answers = [{}]\ndef health(): return answers.pop(0) if len(answers) > 1 else answers[0]"


async def test_three_bad_answers_in_a_row_make_it_unhealthy_and_one_good_one_mends_it() -> None:
    code = ANSWERS.format("1, 0, 0, 1, 0, 0, 0, 1")
    async with Watched(code) as watched:
        await watched.until_told("`health` returned 0", "")
        assert watched.front.unhealthy == ""


async def test_what_starts_unhealthy_is_told_before_it_is_ready() -> None:
    watched = Watched(ANSWERS.format("0, 0, 1"))
    await watched.watch.first()
    assert watched.told == ["`health` returned 0"]
    watched.front.stop()


async def test_several_good_answers_can_be_asked_for() -> None:
    async with Watched(ANSWERS.format("0, 1, 0, 1, 1, 1"), health_successes=3) as watched:
        await watched.until_told("`health` returned 0", "")
        assert watched.runner.handler.health is not None


async def test_a_delay_keeps_the_first_answers_away() -> None:
    watched = Watched("def health(): return False", health_delay=30.0)
    await watched.watch.first()
    assert watched.told == []
    watched.front.stop()


async def test_liveness_follows_later_than_readiness() -> None:
    async with Watched("def health(): return False", replace_after=0.1) as watched:
        assert watched.front.unhealthy and watched.front.alive
        async with asyncio.timeout(5):
            while watched.front.alive:
                await asyncio.sleep(0.005)
    async with Watched("def health(): return False", replace_after=0.0) as watched:
        await asyncio.sleep(0.1)
        assert watched.front.alive


async def test_a_hook_that_hangs_is_unhealthy_and_never_runs_twice_at_a_time() -> None:
    code = "runs = 0\ndef health():\n  global runs\n  runs += 1\n  time.sleep(0.3)"
    async with Watched(code) as watched:
        await watched.until_told("`health` gave no answer within 0.05 s")
        begun = time.monotonic()
        await asyncio.sleep(0.5)
        runs = watched.runner.handler.health._call.__globals__["runs"]  # type: ignore[union-attr]
        assert runs <= 3 + (time.monotonic() - begun) / 0.3


async def test_an_async_hook_that_hangs_is_cancelled_and_asked_again() -> None:
    code = "hang = True\nasync def health():\n  global hang\n  if hang:\n    hang = False\n    await asyncio.sleep(60)"
    async with Watched(code) as watched:
        await watched.until_told("`health` gave no answer within 0.05 s", "")


async def test_a_reason_is_one_short_line() -> None:
    async with Watched(r"def health(): raise OSError('a\nb' + 'x' * 5000)") as watched:
        await watched.until_told("`health` raised OSError: a bxx")
        assert len(watched.told[0]) == 200


async def test_a_hook_that_cancels_itself_does_not_end_the_watch() -> None:
    async with Watched("async def health(): raise asyncio.CancelledError") as watched:
        await watched.until_told("`health` was cancelled")
        await asyncio.sleep(0.05)
