"""Connections to a real PostgreSQL: made once, kept warm, shared by calls, bounded over replicas, closed in the end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest
from loads import calls, calls_going_on, wrk
from pooled import LAZY, POOLED, answers, files, pooled, set_secret, texts
from postgres import Postgres
from running_platform import Platform, is_alive, wait_for

pytestmark = pytest.mark.slow

IN_A_NEIGHBOUR = """
import os
from . import db
import function.db, handler_free

def handle(event, context):
    cursor = db.connection.execute("SELECT pg_backend_pid()")
    return {"backend": cursor.fetchone()[0], "made_in": db.made_in, "other": handler_free.made_in, "pid": os.getpid()}
"""
NEIGHBOUR = """
import os
import psycopg

made_in = os.getpid()
secret = os.path.join(os.environ["STOKER_SECRETS"], "{secret}")
connection = psycopg.connect(open(secret).read(), autocommit=True)
"""
SLOW_INIT = """
import os, time

def init():
    time.sleep(6)

def handle(event, context):
    return str(os.getpid())
"""


async def test_the_first_call_makes_the_connection_and_the_next_use_it(platform: Platform, postgres: Postgres) -> None:
    with pooled(platform, postgres, "lazy", LAZY) as name:
        pid = platform.call(name, path="/look").json()
        assert (pid["made"], pid["there"], postgres.rows(name)) == ([], False, [])  # no call yet: nothing
        begun = time.monotonic()
        first = platform.call(name).json()
        assert time.monotonic() - begun >= 0.3
        assert postgres.rows(name) == [first["backend"]]
        for _ in range(50):
            begun = time.monotonic()
            later = platform.call(name).json()
            assert time.monotonic() - begun < 0.15  # of the caller, on a machine that others use too
            assert later["seconds"] < 0.02
            assert (later["backend"], later["pid"]) == (first["backend"], pid["pid"])
        assert (platform.call(name, path="/look").json()["made"], postgres.opened(name)) == ([pid["pid"]], 1)


async def test_ten_first_calls_at_once_make_one_connection(platform: Platform, postgres: Postgres) -> None:
    with pooled(platform, postgres, "rush", LAZY) as name:
        found = answers(await calls(platform.http, name, 10))
        assert len({one["backend"] for one in found}) == 1
        assert all(one["made"] == [one["pid"]] and one["seconds"] >= 0.2 for one in found)
        assert postgres.opened(name) == 1


async def test_each_replica_has_a_pool_of_its_own_that_was_made_after_the_fork(
    platform: Platform, postgres: Postgres
) -> None:
    with pooled(platform, postgres, "own", connections=20, most=5) as name:  # 3 for each
        platform.scale(name, 5)
        found = answers(await calls(platform.http, name, 60, b"0.05"))
        replicas = set(platform.replicas(name))
        assert {one["pid"] for one in found} == replicas and len(replicas) == 5
        owners = {one["backend"]: one["pid"] for one in found}
        assert all(owners[one["backend"]] == one["pid"] for one in found)  # no session is shared
        assert {f"opened in {pid}" for pid in replicas} <= set(texts(platform, name))


@pytest.mark.parametrize("connections", [0, 10])
def test_a_connection_that_a_module_opens_when_it_loads_is_not_shared_by_a_zygote(
    platform: Platform, postgres: Postgres, connections: int
) -> None:
    name = f"imported-{connections}"
    neighbour = NEIGHBOUR.format(secret=name)
    source = files(IN_A_NEIGHBOUR, **{"db.py": neighbour, "handler_free.py": neighbour})
    with pooled(platform, postgres, name, source, connections=connections, most=4):
        platform.scale(name, 4)
        pids = set(platform.replicas(name))
        # Two modules in each of four replicas, and none in whatever they were forked from.
        wait_for(lambda: len(postgres.rows(name)) == 8, "eight sessions")
        seen = {}
        while set(seen) != pids:
            one = platform.call(name).json()
            assert one["made_in"] == one["other"] == one["pid"]
            seen[one["pid"]] = one["backend"]
        assert len(set(seen.values())) == 4
        if connections:  # nothing else of the function was ever run, not even to find out that it connects
            assert postgres.opened(name) == 8


def test_10000_calls_over_10_replicas_stay_within_20_connections_and_open_none(
    platform: Platform, postgres: Postgres
) -> None:
    with pooled(platform, postgres, "many", connections=20, most=10) as name, postgres.watching(name) as seen:
        platform.scale(name, 10)
        before = postgres.opened(name)
        with wrk(platform, name, connections=32) as load:
            with calls_going_on(platform, name, 10_000):
                pass
            report = load.report()
        assert (report.socket, report.timeout, report.bad) == (0, 0, 0)
        assert postgres.opened(name) == before == 10
        with wrk(platform, name) as load:  # an update holds old and new together
            with calls_going_on(platform, name, 1000):
                set_secret(platform, name, postgres.dsn(name))
                wait_for(lambda: postgres.opened(name) >= 20, "the pools of the new replicas")
                wait_for(lambda: platform.condition(name).state == "ready", "the end of the update")
            report = load.report()
        assert (report.socket, report.timeout, report.bad) == (0, 0, 0)
        assert len(seen) > 100
    assert 10 <= max(seen) <= 20


@pytest.mark.parametrize(("connections", "replicas"), [(1, 1), (3, 3)])
def test_an_update_without_room_goes_one_by_one_and_fails_no_call(
    platform: Platform, postgres: Postgres, connections: int, replicas: int
) -> None:
    name = f"tight-{connections}"
    with pooled(platform, postgres, name, connections=connections, most=replicas), postgres.watching(name) as seen:
        platform.scale(name, replicas)
        before = set(platform.replicas(name))
        with wrk(platform, name, connections=8) as load:
            set_secret(platform, name, postgres.dsn(name))
            wait_for(lambda: not before & set(platform.replicas(name)), "other replicas")
            wait_for(lambda: platform.condition(name).state == "ready", "the end of the update")
            report = load.report()
        assert (report.socket, report.timeout, report.bad) == (0, 0, 0)
        assert len(platform.replicas(name)) == replicas
    assert max(seen) <= connections


def test_more_replicas_than_the_budget_allows_do_not_start_and_describe_says_why(
    platform: Platform, postgres: Postgres
) -> None:
    with pooled(platform, postgres, "capped", connections=3, most=20) as name:
        platform.client.scale(name, 8)
        wait_for(lambda: len(platform.replicas(name)) == 3, "three replicas")
        status, condition = platform.status(name), platform.condition(name)
        assert (status.replicas, status.available_replicas, condition.state) == (3, 3, "ready")
        assert "8 replicas are asked for, and 3 connections are enough for 3 with 1 each" in condition.message


def test_the_budget_holds_over_a_restart_of_control(own_platform: Platform, postgres: Postgres) -> None:
    platform = own_platform
    with pooled(platform, postgres, "kept", connections=4, most=4) as name, postgres.watching(name) as seen:
        platform.scale(name, 4)
        set_secret(platform, name, postgres.dsn(name))
        platform.kill("control")  # in the middle of the update
        platform.wait_until_it_answers()
        wait_for(lambda: len(platform.replicas(name)) == 4, "four replicas again")
        platform.client.scale(name, 2)
        platform.kill("control")
        platform.wait_until_it_answers()
        platform.scale(name, 4)
    assert max(seen) == 4


def test_sessions_of_replicas_that_have_gone_are_gone_too(platform: Platform, postgres: Postgres) -> None:
    with pooled(platform, postgres, "gone", connections=12, most=5) as name:
        platform.scale(name, 5)
        wait_for(lambda: len(postgres.rows(name)) >= 5, "their sessions")
        platform.scale(name, 2)
        wait_for(lambda: len(postgres.rows(name)) == 2, "the end of three", 10)
        old = set(postgres.rows(name))
        for pid in platform.replicas(name):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not old & set(postgres.rows(name)), "the end of the killed ones' sessions", 10)
        wait_for(lambda: len(postgres.rows(name)) == 2, "those of the next", 10)
        platform.scale(name, 0)
        wait_for(lambda: not postgres.rows(name), "the end of all", 10)


def test_sigterm_ends_the_calls_then_the_pool_then_the_process(platform: Platform, postgres: Postgres) -> None:
    with pooled(platform, postgres, "ends") as name:
        (pid,) = platform.replicas(name)
        found: list[object] = []
        caller = threading.Thread(target=lambda: found.append(platform.call(name, b"1").status))
        caller.start()
        wait_for(lambda: "begun" in texts(platform, name), "the call")
        platform.client.scale(name, 0)
        assert is_alive(pid)
        caller.join()
        wait_for(lambda: not is_alive(pid), "its end")
        assert (found, texts(platform, name)[-2:]) == ([200], ["begun", "closed"])


def test_a_restart_of_the_database_costs_at_most_one_call_for_each_connection(
    platform: Platform, postgres: Postgres
) -> None:
    probes = {f"com.openfaas.ready.http.{key}": "1" for key in ("periodSeconds", "failureThreshold")}
    with pooled(platform, postgres, "outage", connections=9, most=2, settings=probes) as name:
        platform.scale(name, 2)
        before = platform.replicas(name)
        with wrk(platform, name, connections=8) as load:
            postgres.stop()
            try:
                wait_for(lambda: platform.status(name).available_replicas == 0, "unreadiness", 15)
                condition = platform.condition(name)
                assert condition.state == "unhealthy"
                assert "2 of 2 replicas unhealthy: `health` raised" in condition.message
                assert [one.state for one in condition.instances] == ["unhealthy"] * 2
            finally:
                postgres.start()
            wait_for(lambda: platform.status(name).available_replicas == 2, "readiness", 15)
            with calls_going_on(platform, name, 500):
                pass
            report = load.report()
        assert (report.socket, report.timeout) == (0, 0)
        assert report.bad <= 6  # two replicas with three connections each
        assert platform.replicas(name) == before and platform.condition(name).state == "ready"


def test_an_init_of_six_seconds_gets_no_call_and_is_not_killed(platform: Platform) -> None:
    platform.deploy("patient", SLOW_INIT, lang="python3-http")
    (first,) = platform.replicas("patient")
    platform.client.scale("patient", 2)
    wait_for(lambda: any(one.pid and one.state == "starting" for one in platform.condition("patient").instances), "it")
    (second,) = [one.pid for one in platform.condition("patient").instances if one.state == "starting"]
    begun = time.monotonic()
    while len(platform.replicas("patient")) < 2:
        assert platform.call("patient").text == str(first)
        time.sleep(0.05)
    assert 5 < time.monotonic() - begun < 10
    assert set(platform.replicas("patient")) == {first, second}
    wait_for(lambda: platform.call("patient").text == str(second), "its first call")
    assert platform.condition("patient").restarts == 0
    platform.client.remove("patient")


def test_a_stop_in_the_middle_of_init_does_not_wait_for_it(platform: Platform) -> None:
    platform.deploy("stopped", SLOW_INIT, lang="python3-http", wait=False)
    wait_for(lambda: any(one.pid for one in platform.condition("stopped").instances), "its start")
    (pid,) = [one.pid for one in platform.condition("stopped").instances]
    time.sleep(0.5)  # it is in `init` by then, or will be ended sooner still
    begun = time.monotonic()
    platform.client.remove("stopped")
    wait_for(lambda: not is_alive(pid), "its end")
    assert time.monotonic() - begun < 3


def test_a_new_password_reaches_every_call_in_seconds_and_fails_none(platform: Platform, postgres: Postgres) -> None:
    handler = POOLED.replace('"pid": os.getpid()', '"pid": os.getpid(), "first": "first" in context.state.conninfo')
    password = f"changed-{os.urandom(4).hex()}"
    with pooled(platform, postgres, "rotated", handler, connections=12, most=3) as name:
        platform.scale(name, 3)
        with wrk(platform, name) as load:
            assert platform.call(name).json()["first"]
            value = postgres.make_user(name, password)
            set_secret(platform, name, value)
            time.sleep(5)
            for _ in range(100):
                assert not platform.call(name).json()["first"]
            report = load.report()
        assert (report.socket, report.timeout, report.bad) == (0, 0, 0)
        wait_for(lambda: platform.condition(name).state == "ready", "the end of the update")
        assert_is_nowhere(platform, password, name)


def assert_is_nowhere(platform: Platform, password: str, name: str) -> None:
    """The value is in no file that outlives the platform, no log, no answer, no environment, no command line."""
    needle = password.encode()
    for path in platform.data.path.rglob("*"):
        if path.is_file() and not path.is_symlink() and "environments" not in path.parts:
            assert needle not in path.read_bytes(), path
    assert needle not in platform.log_file.read_bytes()
    assert password not in str(platform.status(name)) + str(platform.condition(name))
    for pid in platform.processes():
        for file in ("environ", "cmdline"):
            with open(f"/proc/{pid}/{file}", "rb") as content:
                assert needle not in content.read()


def test_a_wrong_password_leaves_the_old_replicas_serving_and_is_told(platform: Platform, postgres: Postgres) -> None:
    with pooled(platform, postgres, "mistyped") as name:
        before = platform.replicas(name)
        set_secret(platform, name, postgres.dsn(name, "wrong"))
        wait_for(lambda: "PoolTimeout" in platform.condition(name).message, "the reason", 30)
        assert platform.replicas(name) == before
        assert platform.call(name).status == 200
        set_secret(platform, name, postgres.dsn(name))
        wait_for(lambda: platform.condition(name).state == "ready", "the good ones", 60)
        assert platform.replicas(name) != before


async def test_calls_that_come_while_the_pool_is_made_wait_for_it(platform: Platform, postgres: Postgres) -> None:
    with pooled(platform, postgres, "asleep") as name:
        platform.scale(name, 0)
        found = answers(await asyncio.wait_for(calls(platform.http, name, 50), 30))
        assert len({one["pid"] for one in found}) == 1
