"""From zero to an answer: a hundred callers at once, and a handler that takes its time to be imported."""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

import pytest
from running_platform import wait_for

from stoker_sdk.units import parse_rfc3339

if TYPE_CHECKING:
    from installed_chart import Installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CALLS, ROUNDS = 100, 3
OVERHEAD_SECONDS = 0.3
IMPORT_SECONDS = 3.0
ECHO = "def handle(event, context):\n    return event.body\n"
SLOW_IMPORT = f"""
import time

time.sleep({IMPORT_SECONDS})
IMPORTED = time.time()

def handle(event, context):
    return str(IMPORTED)
"""


def to_zero(installed: Installed, name: str) -> None:
    installed.client.scale(name, 0, installed.functions)
    pods = ("delete", "pods", "-n", installed.functions, "-l", f"faas_function={name}", "--grace-period=0", "--force")
    installed.kubectl(*pods)
    wait_for(lambda: not installed.condition(name).instances and not installed.pods(name, ending=True), "no pod", 60)


def first_bytes(installed: Installed, function: str) -> list[float]:
    """The times at which each of many calls, all begun at once, has the head of its answer; it must be a 200."""

    def call(_: int) -> float:
        connection = http.client.HTTPConnection(installed.address, 8080, timeout=60)
        try:
            connection.request("POST", f"/function/{function}", b"x")
            answer = connection.getresponse()
            taken = time.monotonic()
            assert (answer.status, answer.read()) == (200, b"x")
            return taken
        finally:
            connection.close()

    with ThreadPoolExecutor(CALLS) as callers:
        return list(callers.map(call, range(CALLS)))


def pod_start(installed: Installed, name: str, watching: subprocess.Popen[str]) -> tuple[float, float]:
    """When the next pod is there, and when its page says that it is ready: what lies between is the cluster's and the
    container's own time.
    """
    assert watching.stdout is not None
    made = 0.0
    for line in watching.stdout:
        made = made or time.monotonic()
        if address := line.strip():
            wait_for(lambda address=address: is_ready(address), "the pod", 60)
            return made, time.monotonic()
    raise AssertionError(f"kubectl has ended, and {name} has no pod")


@contextmanager
def watched(installed: Installed, name: str) -> Iterator[subprocess.Popen[str]]:
    """A line with the address, or without, whenever a pod of the function is new or changes."""
    where = (
        "--kubeconfig",
        str(installed.cluster.kubeconfig),
        "-n",
        installed.functions,
        "-l",
        f"faas_function={name}",
    )
    command = ["kubectl", "get", "pods", *where, "--watch-only", "-o", "jsonpath={.status.podIP}{'\\n'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        time.sleep(2)  # it does not say when it has begun
        try:
            yield watching
        finally:
            watching.kill()


def is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, 8080, timeout=1)
    try:
        connection.request("GET", "/_/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_a_hundred_calls_at_once_wait_for_the_pod_and_hardly_longer(installed: Installed) -> None:
    function = installed.deploy("sleeper", installed.cluster.function("from-zero", ECHO))
    over: list[float] = []
    for _ in range(ROUNDS):
        to_zero(installed, "sleeper")
        with watched(installed, "sleeper") as watching, ThreadPoolExecutor(1) as beside:
            begun = time.monotonic()
            start = beside.submit(pod_start, installed, "sleeper", watching)
            last = max(first_bytes(installed, function))
            made, ready = start.result()
        over.append(made - begun + last - ready)
        print(
            f"{made - begun:.3f} s to a pod, {ready - made:.3f} s of its own, {last - ready:.3f} s to the last answer"
        )
    assert median(over) < OVERHEAD_SECONDS
    installed.client.remove("sleeper", installed.functions)


def test_nobody_is_sent_to_a_pod_whose_handler_is_not_imported(installed: Installed) -> None:
    """The times are all of one machine: its nodes are containers of it, or itself."""
    function = installed.deploy("thinker", installed.cluster.function("from-zero-slow", SLOW_IMPORT))
    to_zero(installed, "thinker")
    begun = time.time()
    status, imported, _ = installed.call(f"/function/{function}", b"")
    assert status == 200
    assert time.time() > float(imported) > begun + IMPORT_SECONDS
    (pod,) = installed.pods("thinker")
    ready = "{.status.conditions[?(@.type=='Ready')].lastTransitionTime}"
    installed.kubectl("wait", "pod", pod, "-n", installed.functions, "--for=condition=Ready", "--timeout=30s")
    since = installed.kubectl("get", "pod", pod, "-n", installed.functions, "-o", f"jsonpath={ready}")
    assert parse_rfc3339(since).timestamp() >= int(float(imported))  # it counts whole seconds
    installed.client.remove("thinker", installed.functions)
