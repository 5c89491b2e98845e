"""Two gateways by the chart: how calls are shared out, what their metrics say together, and the end of one of them."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep

import pytest
from installed_chart import Installed, installed_chart
from pod_processes import connections, kill_pod
from prometheus_client.parser import text_string_to_metric_families
from running_cluster import GIVEN, Cluster
from running_platform import wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(GIVEN), reason="looks at the processes of pods: the node must be this machine"),
]

WHO = """
import os, time

def handle(event, context):
    if event.path == "/slow":
        time.sleep(1)
    return os.environ["STOKER_REPLICA"]
"""


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Installed]:
    with installed_chart(cluster, "stoker-several", {"gateway": {"replicas": 2, "drainSeconds": 15}}) as release:
        wait_for(lambda: len(gateways(release)) == 2, "two gateways", 120)
        yield release


@pytest.fixture(scope="module")
def who(installed: Installed) -> str:
    """A function with three pods, which says who answered."""
    return installed.deploy("who", installed.cluster.function("several-who", WHO), 3)


def ready(installed: Installed, label: str, namespace: str) -> dict[str, str]:
    """The addresses of pods that get calls, by name."""
    found = json.loads(installed.cluster.kubectl("get", "pods", "-n", namespace, "-l", label, "-o", "json"))["items"]
    condition = {"type": "Ready", "status": "True"}
    return {
        pod["metadata"]["name"]: pod["status"]["podIP"]
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
        and any(condition.items() <= one.items() for one in pod["status"].get("conditions", ()))
    }


def gateways(installed: Installed) -> dict[str, str]:
    return ready(installed, "app.kubernetes.io/component=gateway", installed.namespace)


def call_in_turn(installed: Installed, name: str, count: int) -> Counter[str]:
    """So many calls by one connection, and who answered them."""
    connection = http.client.HTTPConnection(installed.address, 8080, timeout=60)
    seen: Counter[str] = Counter()
    try:
        for _ in range(count):
            connection.request("GET", f"/function/{name}")
            answer = connection.getresponse()
            text = answer.read().decode()
            seen[text if answer.status == 200 else f"{answer.status} {text}"] += 1
    finally:
        connection.close()
    return seen


def test_a_connection_that_is_kept_reaches_all_pods(installed: Installed, who: str) -> None:
    wait_for(lambda: len(call_in_turn(installed, who, 9)) == 3, "their routes", 30)
    seen = call_in_turn(installed, who, 30)
    assert len(seen) == 3 and set(seen.values()) == {10}


def test_ten_pods_share_the_calls_of_one_client_and_its_connections_are_kept(installed: Installed, who: str) -> None:
    installed.client.scale("who", 10, installed.functions)
    label = "faas_function=who"
    wait_for(lambda: len(ready(installed, label, installed.functions)) == 10, "ten pods", 240)
    pods = ready(installed, label, installed.functions)
    wait_for(lambda: len(call_in_turn(installed, who, 20)) == 10, "their routes", 30)

    before = dialled(installed, pods)
    seen = call_in_turn(installed, who, 2_000)
    assert set(seen) == set(pods)
    assert all(0.07 <= count / 2_000 <= 0.13 for count in seen.values()), seen
    dials = dialled(installed, pods) - before
    assert len(dials) <= 10  # the client may have come to another proxy than before

    clients = 8
    with ThreadPoolExecutor(clients) as callers:
        counts = list(callers.map(lambda _: call_in_turn(installed, who, 1_250), range(clients)))
    seen = sum(counts, Counter[str]())
    assert set(seen) == set(pods) and seen.total() == 10_000
    assert all(0.07 <= count / 10_000 <= 0.13 for count in seen.values()), seen
    more = dialled(installed, pods) - before - dials
    print(f"dials of 2,000 calls by one connection: {len(dials)}; of 10,000 by {clients}: {len(more)}")
    assert len(more) <= 10 * clients
    installed.client.scale("who", 3, installed.functions)


def dialled(installed: Installed, pods: dict[str, str]) -> set[str]:
    """The connections of the gateways to these pods. Gateways keep them, so none is missing."""
    found = (one for gateway in gateways(installed) for one in connections(gateway, 8080))
    wanted = {_as_the_kernel_writes(address) for address in pods.values()}
    return {one for one in found if one.split()[1].partition(":")[0] in wanted}


def _as_the_kernel_writes(address: str) -> str:
    return "".join(f"{int(part):02X}" for part in reversed(address.split(".")))


def total(installed: Installed, sample: str, name: str) -> tuple[float, int]:
    """The sum over the gateways, and how many of them tell it."""
    told = []
    for address in gateways(installed).values():
        with urllib.request.urlopen(f"http://{address}:8082/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        found = [one for family in families for one in family.samples if one.name == sample]
        values = [one.value for one in found if one.labels.get("function_name") == name]
        told += [sum(values)] if values else []
    return sum(told), len(told)


def test_metrics_of_all_gateways_add_up(installed: Installed, who: str) -> None:
    wait_for(lambda: len(ready(installed, "faas_function=who", installed.functions)) == 3, "three pods", 120)
    before = total(installed, "gateway_function_invocation_total", who)[0]
    answers = [installed.call(f"/function/{who}", b"")[0] for _ in range(60)]  # each by a connection of its own
    assert answers == [200] * 60
    assert total(installed, "gateway_function_invocation_total", who) == (before + 60, 2)
    assert total(installed, "gateway_service_count", who) == (3, 1)
    assert total(installed, "gateway_service_ready_count", who) == (3, 1)
    waiting = [installed.call(f"/async-function/{who}/slow", b"")[0] for _ in range(6)]
    assert waiting == [202] * 6
    assert total(installed, "queue_worker_messages_submitted_total", who)[0] == 6
    told = "queue_worker_pending_messages"
    wait_for(lambda: total(installed, told, who)[1], "how many wait, which is looked up every five seconds", 20)
    assert total(installed, told, who)[1] == 1
    wait_for(lambda: total(installed, "queue_worker_messages_processed_total", who)[0] == 6, "their end", 60)


class Caller:
    """A client that repeats what may be repeated: what was not sent, and a GET whatever became of it.

    `outcomes` are what its calls ended with, `broken` those POSTs that were cut while they ran.
    """

    def __init__(self, installed: Installed, name: str) -> None:
        self.outcomes: Counter[int | str] = Counter()
        self.broken = 0
        self.repeated = 0
        self._address, self._target = installed.address, f"/function/{name}/slow"

    def call(self, method: str) -> None:
        deadline = monotonic() + 10
        while True:
            sent = False
            connection = http.client.HTTPConnection(self._address, 8080, timeout=10)
            try:
                connection.connect()
                sent = True
                connection.request(method, self._target)
                answer = connection.getresponse()
                answer.read()
                self.outcomes[answer.status] += 1
                return
            except (OSError, http.client.HTTPException) as error:
                if sent and method == "POST":
                    self.broken += 1
                    return
                if monotonic() > deadline:
                    self.outcomes[repr(error)] += 1
                    return
            finally:
                connection.close()
            self.repeated += 1
            sleep(0.05)


@contextmanager
def callers(installed: Installed, name: str, count: int) -> Iterator[list[Caller]]:
    """So many clients that call all the time, as long as this is open: every other one with POST."""
    stop = threading.Event()
    made = [Caller(installed, name) for _ in range(count)]

    def work(number: int) -> None:
        while not stop.is_set():
            made[number].call("GET" if number % 2 else "POST")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def leader(installed: Installed) -> str:
    path = "jsonpath={.spec.holderIdentity}"
    return installed.cluster.kubectl("get", "lease", "stoker", "-n", installed.functions, "-o", path)


def test_the_end_of_a_gateway_fails_no_call_that_may_be_repeated_and_another_leads(
    installed: Installed, who: str
) -> None:
    before = leader(installed)
    (victim,) = [pod for pod in gateways(installed) if before.startswith(pod)]
    with callers(installed, who, 16) as made:
        wait_for(lambda: all(one.outcomes[200] for one in made), "a call of each")
        assert kill_pod(victim) >= 5
        killed = monotonic()
        wait_for(lambda: leader(installed) != before, "another leader", 30)
        moved = monotonic() - killed
        wait_for(lambda: len(gateways(installed)) == 2, "the gateway's next life", 120)
        sleep(2)
    outcomes = sum((one.outcomes for one in made), Counter[int | str]())
    broken, repeated = sum(one.broken for one in made), sum(one.repeated for one in made)
    print(f"leader moved in {moved:.1f} s; {outcomes}; {repeated} repeated, {broken} POSTs cut while they ran")
    assert moved < 20
    assert set(outcomes) == {200}
    assert broken <= 8  # of each client the one that ran
