"""Namespaces on a real platform: functions of one name in two of them, restarts, and a kill amid a deletion."""

from __future__ import annotations

import base64
import threading
from typing import Any

import pytest
from faas_cli import FaasCli
from hypothesis import HealthCheck, given, settings
from random_specs import FIELDS
from running_platform import Platform, wait_for

from stoker_sdk.errors import BadInput, NotFound, StokerError
from stoker_sdk.function import FunctionSpec
from stoker_sdk.messages import Secret

SAY = """
import os

def handle(req):
    return os.environ["WHO"] + " " + str(os.getuid())
"""


def is_ready(platform: Platform, name: str, namespace: str) -> bool:
    return platform.client.function(name, namespace).available_replicas > 0


def test_two_functions_of_one_name_share_nothing_and_outlive_a_restart(own_platform: Platform) -> None:
    platform = own_platform
    image = platform.build("twin", SAY)
    platform.client.create_namespace("dev", {"team": "a"}, {"note": "b"})
    for namespace in ("openfaas-fn", "dev"):
        platform.client.create_secret(Secret("word", namespace, namespace))
        platform.client.create(FunctionSpec("twin", image, namespace=namespace, env_vars={"WHO": namespace}))
        wait_for(lambda namespace=namespace: is_ready(platform, "twin", namespace), "the replica")
    answers = [platform.call(name).text.split() for name in ("twin", "twin.openfaas-fn", "twin.dev")]
    assert [who for who, _ in answers] == ["openfaas-fn", "openfaas-fn", "dev"]
    platform.stop()
    platform.start()
    assert platform.client.namespace("dev").labels == {"team": "a", "openfaas": "1"}
    assert [platform.call(name).text.split()[0] for name in ("twin", "twin.dev")] == ["openfaas-fn", "dev"]
    assert [secret.name for secret in platform.client.secrets("dev")] == ["word"]
    platform.client.remove("twin", "dev")
    assert platform.call("twin").status == 200


@pytest.mark.root
def test_functions_of_one_name_run_as_different_users(platform: Platform) -> None:
    image = platform.build("twin", SAY)
    platform.client.create_namespace("users")
    for namespace in ("openfaas-fn", "users"):
        platform.client.create(FunctionSpec("twin", image, namespace=namespace, env_vars={"WHO": namespace}))
        wait_for(lambda namespace=namespace: is_ready(platform, "twin", namespace), "the replica")
    users = {platform.call(name).text.split()[1] for name in ("twin", "twin.users")}
    assert len(users) == 2
    platform.client.delete_namespace("users")
    platform.client.remove("twin")


def test_a_deleted_namespace_leaves_nothing_on_disk_that_a_new_one_would_find(own_platform: Platform) -> None:
    platform = own_platform
    image = platform.build("twin", SAY)
    for _ in range(2):
        platform.client.create_namespace("dev")
        assert platform.client.functions("dev") == [] and platform.client.secrets("dev") == []
        platform.client.create_secret(Secret("word", "dev", "x"))
        platform.client.create(FunctionSpec("twin", image, namespace="dev", env_vars={"WHO": "dev"}))
        wait_for(lambda: is_ready(platform, "twin", "dev"), "the replica")
        assert platform.call("twin.dev").status == 200
        platform.client.delete_namespace("dev")
        with pytest.raises(NotFound):
            platform.client.delete_namespace("dev")
        wait_for(lambda: platform.call("twin.dev").status == 404, "the proxies to know")
    left = [path for folder in (platform.data.functions, platform.data.secrets) for path in folder.rglob("*dev*/*")]
    assert left == [] and list(platform.data.namespaces.iterdir()) == []


def test_a_control_that_is_killed_amid_deletions_finishes_them_when_it_is_back(own_platform: Platform) -> None:
    platform = own_platform
    image = platform.build("twin", SAY)
    names = [f"dev-{number}" for number in range(6)]
    for name in names:
        platform.client.create_namespace(name)
        platform.client.create_secret(Secret("word", name, "x"))
        for function in ("a", "b", "c"):
            platform.client.create(FunctionSpec(function, image, namespace=name, env_vars={"WHO": name}))
    deleting = _delete_in_background(platform, names)
    wait_for(lambda: _some_are_gone(platform, names), "the first deletion")
    platform.kill("control")
    deleting.join(30)
    platform.wait_until_it_answers()
    left = set(platform.client.namespaces()) - {"openfaas-fn"}
    for name in names:
        functions = list((platform.data.functions / name).glob("*.json"))
        secrets = list((platform.data.secrets / name).glob("*"))
        if name in left:  # whole
            assert len(functions) == 3 and len(secrets) == 1
        else:
            assert not functions and not secrets
            with pytest.raises(BadInput):
                platform.client.functions(name)


def _some_are_gone(platform: Platform, names: list[str]) -> bool:
    files = {path.stem for path in platform.data.namespaces.glob("[!.]*.json")}
    return not set(names) <= files


def _delete_in_background(platform: Platform, names: list[str]) -> threading.Thread:
    def delete() -> None:
        for name in names:
            try:
                platform.client.delete_namespace(name)
            except StokerError:
                return  # it was killed

    thread = threading.Thread(target=delete)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_real_platform_reads_specs_back_verbatim_too(platform: Platform) -> None:
    image = platform.build("read-back", SAY)
    token = base64.b64encode(f"admin:{platform.data.password.read_text().strip()}".encode()).decode()
    cli = FaasCli(platform.http, f"Basic {token}")

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(fields=FIELDS)
    def check(fields: dict[str, Any]) -> None:
        assert cli.deploy({"service": "read-back", "image": image} | fields) == [404, 202]
        try:
            described = cli.describe("read-back", "openfaas-fn").json()
            assert {key: described[key] for key in fields} == fields
        finally:
            assert cli.remove("read-back", "openfaas-fn").status == 202

    check()
