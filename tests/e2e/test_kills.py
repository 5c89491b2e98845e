"""`kill -9` of anything, and of everything: what was acknowledged is there afterwards, and what was started is not."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

import pytest
from loads import calls_going_on, log_files, wrk
from running_platform import Platform, is_alive, wait_for

HELLO = "def handle(req):\n    return 'hello'\n"
PARENT = """
import os, subprocess

def handle(event, context):
    child = subprocess.Popen(["sleep", "600"], start_new_session=event.text == "daemon")
    return str(child.pid)
"""


def deploy_some(platform: Platform) -> None:
    """One that is warm, one that sleeps, one with a child process."""
    platform.deploy("warm", HELLO)
    platform.deploy("asleep", HELLO)
    platform.scale("asleep", 0)
    platform.deploy("parent", PARENT)


def assert_all_answer(platform: Platform) -> None:
    for name in ("warm", "asleep"):
        answer = platform.call(name)
        assert (answer.status, answer.text) == (200, "hello"), answer
    assert platform.call("parent").status == 200


def assert_nothing_is_stale(platform: Platform) -> None:
    """Every socket, settings file and control group belongs to a replica that lives."""
    names = [status.name for status in platform.client.functions()]
    living = {one.id for name in names for one in platform.condition(name).instances}
    run = platform.run_folder
    wait_for(lambda: {path.stem for path in (run / "settings").iterdir()} <= living, "old settings to go")
    assert len(list((run / "s").iterdir())) == len(living)
    assert set(control_groups(platform)) <= living


def control_groups(platform: Platform) -> list[str]:
    run = platform.run_folder.name
    return [group.name for group in platform.control_groups() if group.name != run]


def test_control_is_killed_under_load_and_no_call_notices(own_platform: Platform) -> None:
    platform = own_platform
    deploy_some(platform)
    before = platform.replicas("warm")
    with wrk(platform, "warm") as load:
        old = platform.kill("control")
        platform.wait_until_it_answers()
        with calls_going_on(platform, "warm"):
            assert platform.pid("control") != old
        report = load.report()
    assert (report.socket, report.timeout, report.bad) == (0, 0, 0)
    assert platform.replicas("warm") == before
    assert_all_answer(platform)
    assert_nothing_is_stale(platform)


@pytest.mark.slow
def test_calls_wait_for_a_wake_while_control_is_down(own_platform: Platform) -> None:
    platform = own_platform
    deploy_some(platform)
    for _ in range(3):
        platform.kill("control")
        assert platform.call("asleep").text == "hello"
        platform.wait_until_it_answers()
        platform.scale("asleep", 0)


def test_a_proxy_is_killed_and_the_others_go_on(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(proxies=2)
    deploy_some(platform)
    with wrk(platform, "warm", connections=32) as load:
        old = platform.kill("proxy 0")
        assert platform.pid("proxy 0") != old
        with calls_going_on(platform, "warm", 2000):
            assert_all_answer(platform)
        report = load.report()
    assert (report.timeout, report.bad) == (0, 0)
    assert report.socket <= 32  # the connections that the kernel had given to that proxy
    assert_nothing_is_stale(platform)


def test_the_fork_server_is_killed_and_every_function_starts_again(own_platform: Platform) -> None:
    platform = own_platform
    deploy_some(platform)
    child = int(platform.call("parent").text)
    replicas = [*platform.replicas("warm"), *platform.replicas("parent"), child]
    platform.kill("fork server")
    wait_for(lambda: not any(map(is_alive, replicas)), "the end of its replicas and of their children")
    assert_all_answer(platform)
    assert_nothing_is_stale(platform)


@pytest.mark.slow
def test_the_fork_server_is_killed_again_and_again(own_platform: Platform) -> None:
    platform = own_platform
    deploy_some(platform)
    for _ in range(3):
        replicas = [*platform.replicas("warm"), *platform.replicas("asleep"), *platform.replicas("parent")]
        platform.kill("fork server")
        wait_for(lambda: not any(map(is_alive, replicas)), "the end of its replicas")  # noqa: B023 - called at once
        assert_all_answer(platform)


def test_fork_server_and_control_are_killed_together(own_platform: Platform) -> None:
    platform = own_platform
    deploy_some(platform)
    child = int(platform.call("parent").text)
    pids = platform.pids()
    for role in ("fork server", "control"):
        os.kill(pids[role], signal.SIGKILL)
    wait_for(lambda: pids["control"] != platform.pid("control"), "another control")
    platform.wait_until_it_answers()
    assert_all_answer(platform)
    wait_for(lambda: not is_alive(child), "the end of the old replica's child")
    assert_nothing_is_stale(platform)


def test_the_supervisor_is_killed_and_nothing_outlives_it(own_platform: Platform) -> None:
    platform = own_platform
    deploy_some(platform)
    platform.call("parent")
    platform.kill("supervisor")
    platform.assert_no_process_is_left(10)
    platform.start()
    assert_all_answer(platform)
    assert_nothing_is_stale(platform)


def test_a_start_at_once_after_the_kill_of_the_supervisor_sweeps_up_what_is_left(own_platform: Platform) -> None:
    platform = own_platform
    deploy_some(platform)
    platform.call("parent", b"daemon")  # it has left its replica's process group
    old = set(platform.processes())
    platform.kill("supervisor")
    platform.start()
    assert not old & set(platform.processes())
    assert_all_answer(platform)
    assert_nothing_is_stale(platform)


def test_everything_is_killed_at_once_and_starts_again(own_platform: Platform) -> None:
    platform = own_platform
    deploy_some(platform)
    platform.deploy_image("limited", platform.build("limited", HELLO), limits={"memory": "64Mi", "cpu": "0.5"})
    platform.call("parent", b"daemon")
    platform.kill_everything()
    platform.start()
    assert_all_answer(platform)
    assert platform.call("limited").text == "hello"
    assert_nothing_is_stale(platform)
    assert platform.status("asleep").replicas in (0, 1)


def test_what_was_acknowledged_survives_the_kill_of_everything(own_platform: Platform) -> None:
    platform = own_platform
    image = platform.build("hello", HELLO)
    platform.deploy_image("removed", image)
    platform.deploy_image("changed", image)
    platform.client.remove("removed")
    platform.deploy_image("changed", image, wait=False, env_vars={"A": "1"}, labels={"team": "blue"})
    platform.deploy_image("fresh", image, wait=False)  # 202, and at once
    platform.kill_everything()
    platform.start()
    assert [status.name for status in platform.client.functions()] == ["changed", "fresh"]
    assert (platform.status("changed").env_vars, platform.status("changed").labels) == ({"A": "1"}, {"team": "blue"})
    assert platform.wait_ready("changed", 2).revision == 2
    assert platform.wait_ready("fresh", 1).revision == 1
    assert platform.call("fresh").text == platform.call("changed").text == "hello"
    assert platform.call("removed").status == 404


def test_a_replica_that_dies_is_replaced_and_its_children_go_with_it(platform: Platform) -> None:
    platform.deploy("mourned", PARENT)
    child = int(platform.call("mourned").text)
    (pid,) = platform.replicas("mourned")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(child), "the end of the child")
    assert platform.call("mourned").status == 200
    assert platform.replicas("mourned") != [pid]
    assert platform.condition("mourned").restarts == 1


@pytest.mark.parametrize("kind", ["child", "daemon"])
def test_a_removed_function_leaves_no_process_and_no_file(platform: Platform, kind: str) -> None:
    platform.deploy("leaves", PARENT)
    child = int(platform.call("leaves", kind.encode()).text)
    platform.client.remove("leaves")
    wait_for(lambda: not is_alive(child), "the end of the child")
    wait_for(lambda: not log_files(platform, "leaves"), "the end of its logs")
    assert not list(platform.data.functions.rglob("leaves*"))
    assert not [name for name in control_groups(platform) if re.match("leaves-", name)]


def test_a_stop_leaves_no_process_no_socket_and_no_ready_file(own_platform: Platform) -> None:
    platform = own_platform
    deploy_some(platform)
    platform.call("parent", b"daemon")
    run = platform.run_folder
    assert platform.stop() == 0
    assert not platform.ready_file.exists()
    assert [path.name for path in run.rglob("*") if path.is_socket() or path.is_file()] == []
    platform.start()
    assert_all_answer(platform)
