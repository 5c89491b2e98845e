"""The client's methods for namespaces against a running control API."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_control import PASSWORD, running_control

from stoker_sdk.client import ControlClient
from stoker_sdk.errors import BadInput, Conflict, NotFound
from stoker_sdk.http_client import HttpClient

MARK = {"openfaas": "1"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[ControlClient]:
    authorization = "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    with running_control(tmp_path) as control:
        connected = ControlClient(HttpClient(control.url, authorization))
        yield connected
        connected.close()


def test_a_namespace_is_created_with_the_mark_that_gateways_ask_for(client: ControlClient) -> None:
    client.create_namespace("dev", {"team": "a"}, {"note": "b"})
    assert client.namespaces() == ["dev", "openfaas-fn"]
    made = client.namespace("dev")
    assert (made.name, made.labels, made.annotations) == ("dev", MARK | {"team": "a"}, MARK | {"note": "b"})
    with pytest.raises(Conflict):
        client.create_namespace("dev")


def test_an_update_replaces_what_it_had(client: ControlClient) -> None:
    client.create_namespace("dev", {"team": "a"})
    client.update_namespace("dev", annotations={"note": "b"})
    changed = client.namespace("dev")
    assert (changed.labels, changed.annotations) == (MARK, MARK | {"note": "b"})


def test_a_deleted_one_is_gone(client: ControlClient) -> None:
    client.create_namespace("dev")
    client.delete_namespace("dev")
    assert client.namespaces() == ["openfaas-fn"]


def test_what_is_missing_is_named(client: ControlClient) -> None:
    for call in (client.namespace, client.update_namespace, client.delete_namespace):
        with pytest.raises(NotFound, match="'nope'"):
            call("nope")


def test_what_is_refused_says_why(client: ControlClient) -> None:
    with pytest.raises(BadInput, match="belongs to the platform"):
        client.create_namespace("kube-system")
    with pytest.raises(BadInput, match="default"):
        client.delete_namespace("openfaas-fn")
