"""Nothing that is replaced loses a call: the function's version, its replicas, a pod, the gateway with its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from running_platform import wait_for
from steady_load import HANDLER, SteadyLoad

if TYPE_CHECKING:
    from installed_chart import Installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NAME = "steady"


def ready(installed: Installed, replicas: int) -> None:
    """Wait until so many are there and get calls, without those that are ending."""
    what = f"{replicas} replicas"
    wait_for(lambda: len(installed.pods(NAME)) == replicas, what, 60)
    wait_for(lambda: installed.client.function(NAME, installed.functions).available_replicas == replicas, what, 60)


def test_no_call_is_lost_while_everything_is_replaced(installed: Installed) -> None:
    images = [installed.cluster.function("steady", HANDLER.format(version)) for version in ("one", "two")]
    tag = installed.cluster.tag(images[0], "steady:moving")
    function = installed.deploy(NAME, tag)
    with SteadyLoad(installed.address, function) as load:
        wait_for(lambda: load.done["short"] > 50, "calls")

        load.enter("a new tag")
        installed.cluster.tag(images[1], "steady:moving")
        installed.deploy(NAME, tag)
        ready(installed, 1)
        assert installed.call(f"/function/{function}/version", b"")[1] == "two"

        load.enter("a scale from 1 to 3 and back")
        installed.client.scale(NAME, 3, installed.functions)
        ready(installed, 3)
        installed.client.scale(NAME, 1, installed.functions)
        ready(installed, 1)

        load.enter("the end of the only pod")
        (pod,) = installed.pods(NAME)
        installed.kubectl("delete", "pod", pod, "-n", installed.functions, "--wait=false")
        ready(installed, 1)

        load.enter("a new gateway with new workers")
        old, pods, password = set(installed.gateways()), installed.pods(NAME), installed.password()
        installed.upgrade({"gateway": {"podAnnotations": {"replaced": "yes"}}})
        wait_for(lambda: not old & set(installed.gateways()), "the end of the old gateway", 120)
        assert (installed.pods(NAME), installed.password()) == (pods, password)
    assert load.lost == []
    assert load.done["long"] >= 4 and load.done["short"] > 300 and load.done["short, kept-alive"] > 300
    wait_for(lambda: installed.client.call_status(load.later[-1]).state == "done", "the last call for later")
    outcomes = [installed.client.call_status(id) for id in load.later]
    assert {(one.state, len(one.attempts)) for one in outcomes} == {("done", 1)}
    installed.client.remove(NAME, installed.functions)
