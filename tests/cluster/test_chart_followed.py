"""What somebody does who follows the chart's words: log in as it prints, switch the operator on, install once more."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from running_cluster import Cluster
from running_platform import wait_for

if TYPE_CHECKING:
    from installed_chart import Installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NAMESPACE = "stoker-followed"
GROUP = "followed-test.stoker.dev"
HANDLER = "import socket\n\ndef handle(req):\n    return socket.gethostname()\n"


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Installed]:
    from installed_chart import installed_chart

    try:
        with installed_chart(cluster, NAMESPACE, {"gateway": {"replicas": 2}}) as one:
            yield one
    finally:
        cluster.kubectl("delete", "crd", f"functions.{GROUP}", "--ignore-not-found")


@pytest.fixture(scope="module")
def who(release: Installed) -> str:
    return release.deploy("who", release.cluster.function("followed-who", HANDLER))


def pods(release: Installed) -> list[str]:
    return release.kubectl("get", "pods", "-n", release.functions, "-l", "faas_function=who", "-o", "name").split()


def test_the_words_that_an_install_prints_log_in(release: Installed, who: str, tmp_path: Path) -> None:
    notes = release.release["notes"]
    commands = "\n".join(re.findall(r"^  (\S.*)$", notes, re.M))
    with socket.socket() as probe:  # 8080 of this machine may be somebody's
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    assert "8080:8080 &" in commands and "http://127.0.0.1:8080" in commands
    commands = commands.replace("8080:8080 &", f"{port}:8080 > forwarded &\nuntil [ -s forwarded ]; do sleep 0.1; done")
    commands = commands.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    commands = commands.replace("stoker list", f"stoker list -n {release.functions}")
    installed = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where `stoker` is
    environment = os.environ | {"KUBECONFIG": str(release.cluster.kubeconfig), "HOME": str(tmp_path), "PATH": installed}
    script = f"set -eo pipefail; trap 'kill %1' EXIT; {commands}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "who" in done.stdout


def test_a_list_counts_the_calls_of_all_gateways(release: Installed, who: str) -> None:
    before = counted(release)
    assert [release.call(f"/function/{who}", b"")[0] for _ in range(40)] == [200] * 40  # a connection each
    for _ in range(6):  # whichever gateway is asked
        wait_for(lambda: counted(release) == before + 40, "the sum", 20)


def counted(release: Installed) -> float:
    return sum(status.invocation_count for status in release.log_in(release.password()).functions(release.functions))


def test_the_operator_is_switched_on_and_a_deploy_gives_a_function_its_resource(release: Installed, who: str) -> None:
    before = pods(release)
    release.upgrade({"operator": {"enabled": True, "group": GROUP}})
    wait_for(lambda: len(release.gateways()) == 2, "the end of the gateways from before", 60)
    release.client = release.log_in(release.password())  # by connections to the new ones
    assert release.call(f"/function/{who}", b"")[0] == 200
    (status,) = release.client.functions(release.functions)
    release.deploy("who", release.cluster.function("followed-who", HANDLER))
    ready = '{.status.conditions[?(@.type=="Ready")].status}'
    question = ("get", f"functions.{GROUP}", "who", "-n", release.functions, "-o", f"jsonpath={ready}")
    wait_for(lambda: release.kubectl(*question) == "True", "the resource", 60)
    assert pods(release) == before  # nothing was restarted
    release.kubectl("set", "image", "deployment/who", "who=evil", "-n", release.functions)
    image = ("get", "deployment", "who", "-n", release.functions, "-o", "jsonpath={..image}")
    wait_for(lambda: "evil" not in release.kubectl(*image), "what was asked for", 30)
    wait_for(lambda: "SetBack" in release.kubectl("get", "events", "-n", release.functions), "an event")
    assert release.call(f"/function/{who}", b"")[0] == 200
    assert release.client.function("who", release.functions).image == status.image
    wait_for(lambda: pods(release) == before, "the end of the pod that was not asked for", 60)


def test_functions_outlive_an_uninstall_and_the_next_install_finds_them(release: Installed, who: str) -> None:
    before = pods(release)
    release.install_again()
    assert pods(release) == before
    assert release.call(f"/function/{who}", b"")[0] == 200
