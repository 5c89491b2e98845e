"""The platform in a cluster, as the chart installs it from an image of this repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from running_platform import wait_for

from stoker_sdk.errors import StokerError, Unauthorized

if TYPE_CHECKING:
    from installed_chart import Installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

HANDLER = """
import time

def handle(event, context):
    if event.path == "/slow":
        time.sleep(1)
    return "echo " + event.body.decode()
"""


@pytest.fixture(scope="module")
def echo(installed: Installed) -> str:
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
        except StokerError as error:  # the broker is away
            return {str(error)}

    wait_for(lambda: states() == {"done"}, "the calls' outcomes", 120)
