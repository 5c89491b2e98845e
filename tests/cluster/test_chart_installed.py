"""The platform in a cluster, as the chart installs it from an image of this repository."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from installed_chart import Installed, installed_chart
from running_cluster import Cluster
from running_platform import wait_for

from stoker_sdk.errors import Unauthorized

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

HANDLER = """
import time

def handle(event, context):
    if event.path == "/slow":
        time.sleep(1)
    return "echo " + event.body.decode()
"""


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Installed]:
    with installed_chart(cluster, "stoker-installed") as release:
        yield release


@pytest.fixture(scope="module")
def echo(installed: Installed) -> str:
    """A function."""
    return installed.deploy("echo", installed.cluster.function("chart-echo", HANDLER), concurrency="1")


def test_a_function_answers_through_the_gateways_service(installed: Installed, echo: str) -> None:
    assert installed.call(f"/function/{echo}", b"hello")[:2] == (200, "echo hello")
    with pytest.raises(Unauthorized):
        installed.log_in("wrong").functions(installed.functions)


def test_async_calls_survive_the_end_of_the_broker(installed: Installed, echo: str) -> None:
    """Three calls of a second each, one at a time: NATS ends in the middle of them."""
    answers = [installed.call(f"/async-function/{echo}/slow", b"later") for _ in range(3)]
    assert [status for status, _, _ in answers] == [202] * 3
    installed.kubectl("delete", "pod", "stoker-nats-0", "--grace-period=0", "--force")
    ids = [id for _, _, id in answers]

    def states() -> set[str]:
        try:
            return {installed.client.call_status(id).state for id in ids}
        except Exception as error:  # the broker is away
            return {str(error)}

    wait_for(lambda: states() == {"done"}, "the calls' outcomes", 120)


def test_an_upgrade_of_the_gateway_fails_no_call_and_restarts_no_function(installed: Installed, echo: str) -> None:
    function = ("get", "pods", "-n", installed.functions, "-o", "jsonpath={.items[*].metadata.uid}")
    pods, gateway = installed.cluster.kubectl(*function), installed.kubectl("get", "pods", "-o", "name")
    password = installed.password()
    seen: Counter[int | str] = Counter()
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                seen[installed.call(f"/function/{echo}", b"x")[0]] += 1
            except (OSError, http.client.HTTPException) as error:
                seen[repr(error)] += 1

    caller = threading.Thread(target=call)
    caller.start()
    try:
        installed.upgrade({"gateway": {"drainSeconds": 15, "proxies": 1}})
        left = gateway.split()
        wait_for(
            lambda: len(set(left) & set(installed.kubectl("get", "pods", "-o", "name").split())) == 1,
            "the end of the old gateway",
            200,
        )
    finally:
        stop.set()
        caller.join()
    assert set(seen) == {200}
    assert (installed.cluster.kubectl(*function), installed.password()) == (pods, password)
