"""Names of functions, namespaces, secrets, labels."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_sdk.errors import BadInput
from stoker_sdk.names import (
    FunctionKey,
    check_environment_key,
    check_function_name,
    check_label,
    check_namespace,
    check_qualified_key,
    check_secret_name,
    key_from_route,
)

LABELS = st.from_regex(re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII), fullmatch=True)


@given(LABELS, LABELS)
def test_a_key_reads_back_from_its_route(namespace: str, name: str) -> None:
    assert key_from_route(str(FunctionKey(namespace, name))) == FunctionKey(namespace, name)


@given(LABELS)
def test_every_rfc_1123_label_is_a_name(name: str) -> None:
    assert check_function_name(name) == check_namespace(name) == check_secret_name(name) == name


def test_a_route_without_a_namespace_means_the_default_one() -> None:
    assert key_from_route("greet") == FunctionKey("openfaas-fn", "greet")
    assert key_from_route("a.b.c") == FunctionKey("c", "a.b")


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a.b", "a" * 64, "ä", "a\n", "../a", "a b"])
def test_bad_function_names_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"function name .* is not allowed"):
        check_function_name(name)


@pytest.mark.parametrize("name", ["a.b", "a-1.c"])
def test_secrets_may_have_dots(name: str) -> None:
    assert check_secret_name(name) == name


@pytest.mark.parametrize("name", ["", "..", "a..b", ".a", "a/b", "A", "a" * 254])
def test_bad_secret_names_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"secret name .* is not allowed"):
        check_secret_name(name)


def test_labels_follow_the_rules_of_kubernetes() -> None:
    for key, value in (("a", ""), ("com.openfaas.scale/min", "1"), ("A_b.c", "X-y_z.1"), ("a", "v" * 63)):
        check_label(key, value)
    for key, value in (
        ("", "v"),
        ("/a", "v"),
        ("a/", "v"),
        ("a b", "v"),
        ("a", "not allowed"),
        ("a", "v" * 64),
    ):
        with pytest.raises(BadInput, match="label"):
            check_label(key, value)


def test_annotation_keys_follow_them_too_and_are_named_as_such() -> None:
    check_qualified_key("stoker.dev/timeout", "annotation")
    with pytest.raises(BadInput, match="annotation key 'bad key'"):
        check_qualified_key("bad key", "annotation")


def test_environment_names_do_not_begin_with_a_digit() -> None:
    check_environment_key("A_b.c-1")
    for key in ("", "1A", "A=B", "A B"):
        with pytest.raises(BadInput, match="environment variable"):
            check_environment_key(key)
