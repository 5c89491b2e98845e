"""The description of the API: complete, open, and true of what a running control answers."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import requests
import schemathesis
from described_api import CHECKS, OPERATIONS, SCHEMA
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from running_control import PASSWORD, RunningControl, running_control
from schemathesis import GenerationMode

from stoker_gateway.control.app import ROUTES
from stoker_gateway.control.openapi import describe
from stoker_sdk.client import ControlClient
from stoker_sdk.http_client import HttpClient
from stoker_sdk.names import DEFAULT_NAMESPACE

AUTH = ("admin", PASSWORD)
FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningControl]:
    with running_control(tmp_path_factory.mktemp("control")) as running:
        yield running


def served(control: RunningControl) -> dict[str, Any]:
    with urllib.request.urlopen(control.url + "/openapi.json", timeout=10) as response:
        assert response.headers["Content-Type"] == "application/json"
        described: dict[str, Any] = json.load(response)
        return described


def empty(control: RunningControl) -> None:
    """As at the start: nothing deployed, no secret, only the default namespace."""
    client = ControlClient(HttpClient(control.url, "Basic " + base64.b64encode(":".join(AUTH).encode()).decode()))
    for function in client.functions():
        client.remove(function.name)
    for secret in client.secrets():
        client.remove_secret(secret.name)
    for namespace in client.namespaces():
        if namespace != DEFAULT_NAMESPACE:
            client.delete_namespace(namespace)
    client.close()


def test_every_route_is_described_and_nothing_else() -> None:
    routes = {(route.method.lower(), route.path.replace(":.*}", "}")) for route in ROUTES}
    described = {(method, path) for path, item in describe()["paths"].items() for method in item}
    assert described == routes


def test_it_is_served_without_credentials_as_it_was_made(control: RunningControl) -> None:
    assert served(control) == json.loads(json.dumps(describe()))


def test_it_is_a_valid_openapi_document_with_schemas_that_are_schemas(control: RunningControl) -> None:
    document = served(control)
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    schemathesis.openapi.from_dict(document).validate()
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_routes_below_system_ask_for_credentials_and_say_so(control: RunningControl) -> None:
    for path, item in served(control)["paths"].items():
        for operation in item.values():
            assert ("401" in operation["responses"]) == path.startswith(("/system/", "/ui/"))
            assert (operation.get("security") == []) != ("401" in operation["responses"])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_a_route_asks_for_credentials_unless_it_says_that_it_is_open(
    control: RunningControl, operation: schemathesis.schemas.APIOperation
) -> None:
    is_open = operation.definition.raw.get("security") == []
    url = control.url + operation.path.format(name="greet", rest="x", id="x", owner="x")
    for header in ({}, {"Authorization": "Bearer "}, {"Authorization": "Basic YWRtaW46d3Jvbmc="}):
        answer = requests.request(operation.method, url, headers=header, allow_redirects=False, timeout=10)
        assert (answer.status_code != 401) == is_open


def closed(schema: Any) -> Any:
    """The schema, which lets no key pass that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {key: closed(value) for key, value in schema.items()}
    return rest | ({"additionalProperties": False} if "properties" in schema else {})


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/system/functions", ""),
        ("/system/function/{name}", "?usage=1"),
        ("/system/function/{name}/revisions", ""),
        ("/system/secrets", ""),
        ("/system/namespaces", ""),
        ("/system/namespace/{name}", ""),
        ("/system/info", ""),
    ],
)
def test_answers_have_the_keys_that_are_described_and_no_other(control: RunningControl, path: str, query: str) -> None:
    session = requests.Session()
    session.auth = AUTH
    everything = {"envProcess": "x", "envVars": {"A": "b"}, "secrets": ["described"], "labels": {}, "annotations": {}}
    limits = {"limits": {"memory": "1Mi", "cpu": "1", "nvidia.com/gpu": "1"}, "requests": {}, "constraints": ["a=b"]}
    function = {"service": "described", "image": "i", "readOnlyRootFilesystem": True} | everything | limits
    namespace = {"name": "described", "labels": {"openfaas": "1"}, "annotations": {"a": "b"}}
    session.post(control.url + "/system/secrets", json={"name": "described", "value": "x"})
    session.post(control.url + "/system/namespace/", json=namespace)
    session.put(control.url + "/system/functions", json=function)
    session.post(control.url + "/system/functions", json=function)
    document = closed(describe())
    content = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    answer = session.get(control.url + path.format(name="described") + query)
    assert answer.status_code == 200 and answer.json()
    jsonschema_rs.validate(content["schema"] | {"components": document["components"]}, answer.json())


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_answers_are_as_described_whatever_is_sent(
    control: RunningControl, operation: schemathesis.schemas.APIOperation, mode: GenerationMode
) -> None:
    @FEW
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        if isinstance(case.query, dict):
            case.query.pop("follow", None)  # such an answer has no end
        answer = case.call(base_url=control.url, auth=AUTH, allow_redirects=False)
        case.validate_response(answer, checks=CHECKS)

    try:
        send()
    except Unsatisfiable:
        pytest.skip("there is nothing to get wrong in it")


@pytest.mark.slow
def test_answers_are_as_described_when_one_call_follows_the_other(control: RunningControl) -> None:
    class Workflow(SCHEMA.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            empty(control)  # or the same steps would be answered differently the next time

        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"base_url": control.url, "auth": AUTH, "allow_redirects": False}

        def validate_response(self, response: Any, case: schemathesis.Case, **rest: Any) -> None:
            case.validate_response(response, checks=CHECKS)

    Workflow.run(settings=settings(FEW, max_examples=40, stateful_step_count=10))
