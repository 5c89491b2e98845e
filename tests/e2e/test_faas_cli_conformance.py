"""What an unmodified faas-cli does to a platform: its requests in its order, and exactly the answers that it needs.

Statuses and the sets of keys are written out, so that a changed one fails (contract sections 2.3 to 2.7, 3.1, 3.2).
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from faas_cli import FaasCli
from running_platform import Platform, wait_for

HANDLER = """
def handle(req):
    print("got " + req, flush=True)
    return req.upper()
"""
MARK = {"openfaas": "1"}
DEFAULT, OTHER = "openfaas-fn", "conformance"
NAME = "conform"
SECRET_NAME = "conform-key"

STATUS_KEYS = {"name", "image", "namespace", "envVars", "secrets", "labels", "annotations", "limits", "requests",
               "readOnlyRootFilesystem", "constraints", "replicas", "availableReplicas", "createdAt",
               "stoker"}  # fmt: skip
"""Of a function that has a value for each field, ready, described. `stoker` is ours."""
BARE_KEYS = {
    "name",
    "image",
    "namespace",
    "labels",
    "annotations",
    "replicas",
    "availableReplicas",
    "createdAt",
    "stoker",
}
"""Of one for which nothing was set: faas-cli sends empty labels and annotations."""


def spec(image: str, namespace: str) -> dict[str, Any]:
    """What a stack with every key becomes."""
    return {
        "service": NAME,
        "image": image,
        "namespace": namespace,
        "envVars": {"GREETING": "hello  world ", "EMPTY": "", "NUMBER": "007"},
        "constraints": ["zone = a"],
        "secrets": [SECRET_NAME],
        "labels": {"com.openfaas.scale.min": "1", "team": "Kitchen_1.a", "empty": ""},
        "annotations": {"topic": "a,b", "note": "any: text\n", "prometheus.io.scrape": "true"},
        "limits": {"memory": "1G", "cpu": "0.5"},
        "requests": {"memory": "128M", "cpu": "500m"},
        "readOnlyRootFilesystem": True,
    }


@dataclass
class World:
    """A user who is logged in, and one who is not; an image; two namespaces with a secret each."""

    platform: Platform
    cli: FaasCli
    stranger: FaasCli
    image: str

    def ready(self, namespace: str, name: str = NAME, replicas: int = 1) -> Any:
        """As `faas-cli ready NAME`: ask until enough replicas are available; the last answer."""

        def enough() -> Any:
            status = self.cli.describe(name, namespace).json()
            return status if status.get("availableReplicas", 0) == replicas else None

        return wait_for(enough, f"{replicas} replicas of {name}", 60)


@pytest.fixture(scope="module")
def world(platform: Platform) -> Iterator[World]:
    password = platform.data.password.read_text().strip()
    token = base64.b64encode(f"admin:{password}".encode()).decode()
    cli = FaasCli(platform.http, f"Basic {token}")
    yield World(platform, cli, FaasCli(platform.http), platform.build(NAME, HANDLER))
    for namespace in (DEFAULT, OTHER):
        cli.remove(NAME, namespace)
        cli.send("DELETE", "/system/secrets", {"name": SECRET_NAME, "namespace": namespace})
    cli.namespace("DELETE", OTHER, {"name": OTHER, "labels": MARK})


def test_login_asks_for_the_list_and_tells_wrong_passwords(world: World) -> None:
    assert world.cli.list().status == 200
    wrong = base64.b64encode(b"admin:wrong").decode()
    assert FaasCli(world.platform.http, f"Basic {wrong}").list().status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/system/functions"), ("PUT", "/system/functions"), ("DELETE", "/system/functions"),
        ("GET", "/system/function/x"), ("POST", "/system/scale-function/x"), ("GET", "/system/logs?name=x"),
        ("GET", "/system/secrets"), ("POST", "/system/secrets"), ("GET", "/system/namespaces"),
        ("POST", "/system/namespace/"), ("GET", "/system/info"), ("POST", "/system/alert"),
    ],
)  # fmt: skip
def test_who_is_logged_out_sends_an_empty_bearer_and_is_asked_for_a_password(
    world: World, method: str, path: str
) -> None:
    reply = world.stranger.send(method, path, None if method == "GET" else {})
    assert (reply.status, reply.text) == (401, "invalid credentials\n")
    assert reply.headers["www-authenticate"] == 'Basic realm="Restricted"'
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_version_finds_nothing_null(world: World) -> None:
    reply = world.cli.send("GET", "/system/info")
    assert reply.status == 200 and b"null" not in reply.body
    info = reply.json()
    assert set(info) == {"provider", "version", "arch"}
    assert set(info["provider"]) == {"provider", "version", "orchestration"}
    for version in (info["version"], info["provider"]["version"]):
        assert set(version) == {"release", "sha"} and version["release"]


def test_ready_asks_for_health_without_credentials(world: World) -> None:
    reply = world.cli.send("GET", "/healthz", authorization="", agent="Go-http-client/1.1")
    assert (reply.status, reply.text) == (200, "OK")


# From here on the tests are one story, in order.


def test_namespaces_are_created_listed_and_described(world: World) -> None:
    labels, annotations = MARK | {"team": "a"}, MARK | {"note": "b c"}
    body = {"name": OTHER, "labels": labels, "annotations": annotations}
    assert world.cli.namespace("GET", OTHER).status == 404
    reply = world.cli.namespace("POST", OTHER, body)
    assert (reply.status, reply.body) == (201, b"")
    assert world.cli.namespace("POST", OTHER, body).status == 409
    assert world.cli.namespace("POST", "unmarked", {"name": "unmarked"}).status == 400
    reply = world.cli.send("GET", "/system/namespaces")
    assert reply.status == 200 and {DEFAULT, OTHER} <= set(reply.json())
    described = world.cli.namespace("GET", OTHER)
    assert (described.status, described.json()) == (200, body)


def test_a_namespace_is_updated_and_loses_what_is_not_named(world: World) -> None:
    body = {"name": OTHER, "labels": MARK, "annotations": MARK}
    reply = world.cli.namespace("PUT", OTHER, body)
    assert (reply.status, reply.body) == (202, b"")
    assert world.cli.namespace("GET", OTHER).json() == body
    assert world.cli.namespace("PUT", "nowhere", {**body, "name": "nowhere"}).status == 404
    assert world.cli.namespace("PUT", OTHER, {**body, "name": "another"}).status == 400


@pytest.mark.parametrize("namespace", [DEFAULT, OTHER])
def test_secrets_are_created_replaced_and_listed_without_their_values(world: World, namespace: str) -> None:
    raw = base64.b64encode(b"from a file\n").decode()
    secret = {"name": SECRET_NAME, "namespace": namespace, "value": "from a file", "rawValue": raw}
    reply = world.cli.send("POST", "/system/secrets", secret)
    assert (reply.status, reply.body) == (202, b"")
    assert world.cli.send("POST", "/system/secrets", secret).status == 409
    reply = world.cli.send("PUT", "/system/secrets", {**secret, "value": "new"})
    assert (reply.status, reply.body) == (202, b"")
    listed = world.cli.send("GET", f"/system/secrets?namespace={namespace}")
    assert listed.status == 200 and {"name": SECRET_NAME, "namespace": namespace} in listed.json()
    assert b"alue" not in listed.body
    missing = {"name": "no-such-secret", "namespace": namespace, "value": "x"}
    assert world.cli.send("PUT", "/system/secrets", missing).status == 404
    assert world.cli.send("DELETE", "/system/secrets", {"name": "no-such-secret"}).status == 404
    assert world.cli.send("POST", "/system/secrets", {**missing, "name": "No such"}).status == 422


@pytest.mark.parametrize("namespace", [DEFAULT, OTHER])
def test_deploy_puts_and_on_404_posts_and_redeploy_only_puts(world: World, namespace: str) -> None:
    wanted = spec(world.image, namespace)
    assert world.cli.deploy(wanted) == [404, 202]
    world.ready(namespace)
    assert world.cli.deploy(wanted) == [202]
    assert world.cli.send("POST", "/system/functions", wanted).status == 409
    for broken in ({**wanted, "service": ""}, {**wanted, "image": ""}, {**wanted, "secrets": ["missing"]}):
        assert world.cli.send("PUT", "/system/functions", broken).status == 400
    elsewhere = {**wanted, "namespace": "nowhere"}
    assert world.cli.deploy(elsewhere) == [400]


@pytest.mark.parametrize("namespace", [DEFAULT, OTHER])
def test_describe_and_list_have_exactly_the_fields_of_the_contract(world: World, namespace: str) -> None:
    world.ready(namespace)
    described = world.cli.describe(NAME, namespace)
    assert described.status == 200 and described.headers["content-type"] == "application/json"
    assert set(described.json()) - {"usage"} == STATUS_KEYS
    listed = world.cli.list(namespace)
    assert listed.status == 200 and listed.headers["content-type"] == "application/json"
    [one] = [item for item in listed.json() if item["name"] == NAME]
    assert set(one) - {"invocationCount", "usage"} == STATUS_KEYS
    assert (one["namespace"], one["replicas"], one["availableReplicas"]) == (namespace, 1, 1)
    missing = world.cli.describe("no-such-function", namespace)
    assert missing.status == 404


@pytest.mark.parametrize("namespace", [DEFAULT, OTHER])
def test_diff_finds_no_difference_whichever_way_it_compares(world: World, namespace: str) -> None:
    sent = spec(world.image, namespace)
    [found] = [item for item in world.cli.list(namespace).json() if item["name"] == NAME]
    described = world.cli.describe(NAME, namespace).json()
    for remote in (found, described):
        assert remote["name"] == sent["service"]
        assert {key: remote.get(key) for key in sent if key != "service"} == {
            key: value for key, value in sent.items() if key != "service"
        }


def test_a_function_with_nothing_set_has_nothing_but_the_fields_that_are_always_there(world: World) -> None:
    name = "conform-bare"
    bare = {"service": name, "image": world.image, "labels": {}, "annotations": {}}
    assert world.cli.deploy(bare) == [404, 202]
    assert set(world.ready(DEFAULT, name)) - {"usage"} == BARE_KEYS
    assert world.cli.scale(name, 0, DEFAULT).status == 202
    described = wait_for(lambda: _without_replicas(world, name), "no replica")
    assert set(described) == BARE_KEYS - {"replicas", "availableReplicas"}
    assert world.cli.remove(name, DEFAULT).status == 202


def _without_replicas(world: World, name: str) -> Any:
    described = world.cli.describe(name, DEFAULT).json()
    return described if "availableReplicas" not in described else None


@pytest.mark.parametrize("namespace", [DEFAULT, OTHER])
def test_invoke_names_the_namespace_and_sends_no_credentials(world: World, namespace: str) -> None:
    world.ready(namespace)
    reply = world.cli.invoke(NAME, namespace, b"hello from " + namespace.encode())
    assert (reply.status, reply.text) == (200, f"HELLO FROM {namespace.upper()}")
    assert reply.headers["x-call-id"] and reply.headers["x-start-time"].isdigit()
    [one] = [item for item in world.cli.list(namespace).json() if item["name"] == NAME]
    assert one["invocationCount"] == 1
    assert world.cli.invoke("no-such-function", namespace).status == 404


@pytest.mark.parametrize("namespace", [DEFAULT, OTHER])
def test_logs_are_json_objects_with_all_fields(world: World, namespace: str) -> None:
    def printed() -> Any:
        reply = world.cli.logs(NAME, namespace)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
        messages = [json.loads(line) for line in reply.text.splitlines()]
        return [message for message in messages if message["text"].startswith("got ")]

    [message] = wait_for(printed, "the line that the call printed")
    assert set(message) == {"name", "namespace", "instance", "timestamp", "text", "call"}
    assert (message["name"], message["namespace"]) == (NAME, namespace)
    assert message["text"] == f"got hello from {namespace}\n"
    last = world.cli.logs(NAME, namespace, lines=1)
    assert len(last.text.splitlines()) == 1
    assert world.cli.logs("no-such-function", namespace).status == 404


def test_logs_follow_until_the_client_leaves(world: World) -> None:
    connection = http.client.HTTPConnection(*world.platform.http, timeout=30)
    headers = {"Authorization": world.cli.authorization, "User-Agent": "faas-cli/0.18.12"}
    connection.request("GET", f"/system/logs?follow=true&name={NAME}&namespace={OTHER}&tail=-1", None, headers)
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Type")) == (200, "application/x-ndjson")
    assert world.cli.invoke(NAME, OTHER, b"while followed").status == 200
    while b"got while followed" not in response.readline():
        pass
    connection.close()


def test_scale_takes_the_namespace_from_the_body(world: World) -> None:
    reply = world.cli.scale(NAME, 2, OTHER)
    assert (reply.status, reply.body) == (202, b"")
    assert world.ready(OTHER, replicas=2)["replicas"] == 2
    assert world.ready(DEFAULT)["replicas"] == 1
    assert world.cli.scale("no-such-function", 1, OTHER).status == 404
    assert world.cli.send("POST", f"/system/scale-function/{NAME}?namespace={OTHER}", {"replicas": 1}).status == 202
    world.ready(OTHER)


def test_remove_takes_the_namespace_from_the_body_and_tells_what_is_gone_already(world: World) -> None:
    reply = world.cli.remove(NAME, OTHER)
    assert (reply.status, reply.body) == (202, b"")
    assert world.cli.remove(NAME, OTHER).status == 404
    assert world.cli.describe(NAME, OTHER).status == 404
    assert world.cli.describe(NAME, DEFAULT).status == 200
    assert world.cli.send("DELETE", "/system/functions", {"functionName": ""}).status == 400


def test_a_secret_is_removed_once(world: World) -> None:
    secret = {"name": SECRET_NAME, "namespace": OTHER}
    reply = world.cli.send("DELETE", "/system/secrets", secret)
    assert (reply.status, reply.body) == (202, b"")
    assert world.cli.send("DELETE", "/system/secrets", secret).status == 404
    assert {"name": SECRET_NAME, "namespace": DEFAULT} in world.cli.send("GET", "/system/secrets").json()


def test_a_namespace_is_removed_with_what_is_in_it(world: World) -> None:
    secret = {"name": SECRET_NAME, "namespace": OTHER, "value": "x"}
    assert world.cli.send("POST", "/system/secrets", secret).status == 202
    assert world.cli.deploy(spec(world.image, OTHER)) == [404, 202]
    world.ready(OTHER)
    body = {"name": OTHER, "labels": MARK}
    assert world.cli.namespace("DELETE", OTHER).status == 400
    reply = world.cli.namespace("DELETE", OTHER, body)
    assert (reply.status, reply.body) == (202, b"")
    assert world.cli.namespace("DELETE", OTHER, body).status == 404
    assert OTHER not in world.cli.send("GET", "/system/namespaces").json()
    assert world.cli.describe(NAME, OTHER).status == 400
    wait_for(lambda: world.cli.invoke(NAME, OTHER).status == 404, "the proxies to know")
    assert world.cli.invoke(NAME, DEFAULT, b"x").text == "X"


def test_nothing_was_answered_with_204(world: World) -> None:
    assert {status for _, _, status in world.cli.sent} <= {200, 201, 202, 400, 401, 404, 409, 422}
    created = {(method, path) for method, path, status in world.cli.sent if status == 201}
    assert created == {("POST", "/system/namespace/")}
