"""Which gateway is meant, and how its address is written."""

from __future__ import annotations

import pytest

from stoker_sdk.errors import BadInput
from stoker_sdk.gateway_address import (
    DEFAULT_GATEWAY,
    choose_gateway,
    function_url,
    is_loopback,
    normalize_gateway,
)


@pytest.mark.parametrize(
    ("flag", "stack", "variable", "expected"),
    [
        ("", "", "", DEFAULT_GATEWAY),
        ("", "", "http://var:1", "http://var:1"),
        ("", "http://stack:1", "http://var:1", "http://stack:1"),
        ("", DEFAULT_GATEWAY + "/", "http://var:1", "http://var:1"),
        ("http://flag:1", "http://stack:1", "http://var:1", "http://flag:1"),
        (DEFAULT_GATEWAY, "http://stack:1", "http://var:1", DEFAULT_GATEWAY),
    ],
)
def test_flag_then_stack_then_variable_then_default(flag: str, stack: str, variable: str, expected: str) -> None:
    assert choose_gateway(flag, stack, {"OPENFAAS_URL": variable}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://Functions.Example.ORG/", "https://functions.example.org"),
        ("localhost:8080", "http://localhost:8080"),
        ("http://host/base/", "http://host/base"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_addresses_are_written_one_way(text: str, expected: str) -> None:
    assert normalize_gateway(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host",
        "http://",
        "http://host:port",
        "http://a b",
        "http://host?x=1",
        "http://u:p@host",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is not an address"):
        normalize_gateway(text)


def test_loopback_is_known_by_the_address_and_not_by_the_look() -> None:
    assert all(map(is_loopback, ("http://127.0.0.1:8080", "http://127.9.9.9", "https://localhost", "http://[::1]:1")))
    assert not any(
        map(is_loopback, ("http://127.0.0.1.example.org", "http://localhost.example.org", "http://10.0.0.1"))
    )


def test_a_function_is_called_by_name_and_by_namespace_where_one_is_given() -> None:
    assert function_url("http://h", "greet", "") == "http://h/function/greet"
    assert function_url("http://h", "greet", "dev") == "http://h/function/greet.dev"
