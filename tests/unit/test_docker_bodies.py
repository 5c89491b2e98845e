"""From a replica to the container that the Engine is asked for, and which images are containers' at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoker_gateway.providers.docker.body import Place, body_of
from stoker_gateway.providers.docker.engine import Engine
from stoker_gateway.providers.local.artefacts import Artefact, is_container
from stoker_gateway.providers.local.plan import Version
from stoker_sdk.errors import BadInput
from stoker_sdk.function import FunctionSpec, Resources

DIGEST = "ghcr.io/x/greet@sha256:" + "a" * 64


def spec(**fields: Any) -> FunctionSpec:
    return FunctionSpec(**({"service": "greet", "image": "ghcr.io/x/greet:1", "namespace": "fn"} | fields))


def body(id: str = "greet-3-abc", secrets: Path | None = None, **fields: Any) -> dict[str, Any]:
    version = Version(3, spec(**fields), "", Artefact("greet"), DIGEST)
    return body_of(id, version, Place("one", "first"), network="n3t", user="1900000001:1900000001", secrets=secrets)


def host(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = body(**fields)["HostConfig"]
    return found


def environment(**fields: Any) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in body(**fields)["Env"])


def test_a_container_may_do_nothing_that_it_need_not() -> None:
    one = host()
    assert (one["CapDrop"], one["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    assert body()["User"] == "1900000001:1900000001"
    assert one["PidsLimit"] > 0
    assert not {"Privileged", "Binds", "PortBindings", "PidMode", "IpcMode", "Devices"} & one.keys()


def test_it_is_on_a_network_of_its_platform_and_is_not_started_again_by_the_engine() -> None:
    assert host()["NetworkMode"] == "n3t"
    assert host()["RestartPolicy"] == {"Name": "no"}


def test_its_labels_say_whose_it_is_whatever_the_user_says() -> None:
    labels = body(labels={"team": "x", "stoker.dev/platform": "other", "stoker.dev/replica": "y"})["Labels"]
    assert labels["team"] == "x"
    assert labels["stoker.dev/platform"] == "one" and labels["stoker.dev/start"] == "first"
    assert labels["stoker.dev/replica"] == "greet-3-abc"
    assert (labels["stoker.dev/namespace"], labels["stoker.dev/function"]) == ("fn", "greet")


def test_what_runs_is_the_pinned_image() -> None:
    assert body()["Image"] == DIGEST


def test_the_watchdog_is_told_as_on_a_cluster_and_leaves_at_once() -> None:
    found = environment(env_vars={"A": "b=c"}, env_process="cat", annotations={"stoker.dev/timeout": "90s"})
    assert (found["A"], found["fprocess"]) == ("b=c", "cat")
    assert found["exec_timeout"] == found["read_timeout"] == found["write_timeout"] == "1m30s"
    assert found["healthcheck_interval"] == "0s"
    assert found["STOKER_REPLICA"] == "greet-3-abc"
    assert environment(env_vars={"STOKER_REPLICA": "forged"})["STOKER_REPLICA"] == "greet-3-abc"


def test_secrets_are_files_that_can_only_be_read() -> None:
    (mount,) = body(secrets=Path("/run/x/secrets/fn.greet"))["HostConfig"]["Mounts"]
    assert (mount["Source"], mount["Target"]) == ("/run/x/secrets/fn.greet", "/var/openfaas/secrets")
    assert mount["ReadOnly"] is True
    assert "Mounts" not in host()


def test_a_read_only_root_has_a_temporary_folder() -> None:
    one = host(read_only_root_filesystem=True)
    assert one["ReadonlyRootfs"] is True and list(one["Tmpfs"]) == ["/tmp"]
    assert "ReadonlyRootfs" not in host()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Resources(memory="64Mi"), {"Memory": 67108864, "MemorySwap": 67108864}),
        (Resources(cpu="500m"), {"NanoCpus": 500_000_000}),
        (Resources(cpu="100000"), {"NanoCpus": (os.cpu_count() or 1) * 10**9}),
        (Resources(memory="1000000Ei"), {"Memory": 2**62, "MemorySwap": 2**62}),
    ],
)
def test_limits_are_the_engines_and_never_more_than_it_takes(limits: Resources, expected: dict[str, int]) -> None:
    assert {name: value for name, value in host(limits=limits).items() if name in expected} == expected


def test_a_long_id_is_still_a_host_name() -> None:
    assert len(body(id="x" * 70 + "-1-abcdef")["Hostname"]) <= 63
    assert not body(id="x-" + "y" * 62)["Hostname"].startswith("-")


@pytest.mark.parametrize(
    ("image", "program", "host_programs", "expected"),
    [
        ("stoker.local/greet@sha256:" + "a" * 64, "", False, False),
        ("stoker.local/greet:1", "", False, False),
        ("ghcr.io/x/greet:1", "", False, True),
        ("greet", "", True, True),
        ("none", "cat", True, False),
        ("none", "cat", False, True),
        ("docker:none", "cat", True, True),
    ],
)
def test_the_image_says_what_a_function_is(image: str, program: str, host_programs: bool, expected: bool) -> None:
    assert is_container(spec(image=image, env_process=program), host_programs) is expected


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:2375", "ssh://host", "", "unix://relative.sock", "/run/docker.sock"]
)
def test_an_engine_elsewhere_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="--docker-host unix:///PATH"):
        Engine(address)


def test_who_runs_no_container_loads_nothing_for_them() -> None:
    code = "import sys, stoker_gateway.control.__main__; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "stoker_gateway.providers.local.provider" in loaded
    assert not [name for name in loaded if name.startswith("stoker_gateway.providers.docker")]
