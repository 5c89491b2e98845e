"""A function as a Function resource and back: nothing is lost, and what cannot be a function is refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from random_specs import FIELDS, NAMES

from stoker_sdk.errors import BadInput
from stoker_sdk.function import FunctionSpec, Resources
from stoker_sdk.function_resource import resource_of, spec_of

NODEINFO: dict[str, Any] = {
    "name": "nodeinfo",
    "image": "functions/nodeinfo:latest",
    "labels": {"com.openfaas.scale.min": "2", "com.openfaas.scale.max": "15"},
    "environment": {"write_debug": "true"},
    "limits": {"cpu": "200m", "memory": "1Gi"},
    "requests": {"cpu": "10m", "memory": "128Mi"},
}


def read(**fields: Any) -> FunctionSpec:
    return spec_of("nodeinfo", "openfaas-fn", NODEINFO | fields)


@given(NAMES, FIELDS)
def test_there_and_back_is_the_same_function(name: str, fields: dict[str, Any]) -> None:
    asked = msgspec.convert(fields | {"service": name, "image": "a/b:1", "namespace": "fn"}, FunctionSpec)
    resource = msgspec.json.decode(msgspec.json.encode(resource_of(asked)))
    assert resource["metadata"] == {"name": name, "namespace": "fn"}
    assert spec_of(name, "fn", resource["spec"]) == asked


def test_the_reference_resource_is_the_function_that_it_says() -> None:
    spec = read()
    assert (spec.service, spec.image, spec.namespace) == ("nodeinfo", "functions/nodeinfo:latest", "openfaas-fn")
    assert (spec.min_replicas, spec.max_replicas, spec.env_vars) == (2, 15, {"write_debug": "true"})
    assert (spec.limits, spec.requests) == (Resources("1Gi", "200m"), Resources("128Mi", "10m"))
    assert resource_of(spec)["spec"] == NODEINFO


def test_group_and_version_are_chosen() -> None:
    assert resource_of(read())["apiVersion"] == "openfaas.com/v1"
    assert resource_of(read(), "fn.example.org", "v1alpha2")["apiVersion"] == "fn.example.org/v1alpha2"


def test_the_handler_is_the_process_and_null_is_what_is_absent() -> None:
    spec = read(handler="cat", labels=None, secrets=None, readOnlyRootFilesystem=None, replicas=5)
    assert (spec.env_process, spec.labels, spec.secrets) == ("cat", None, None)
    assert not spec.read_only_root_filesystem


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (None, "spec: Expected `object`, got `null`"),
        ([], "spec: Expected `object`"),
        (NODEINFO | {"name": "other"}, "spec.name is 'other' and metadata.name 'nodeinfo': make them the same"),
        (NODEINFO | {"name": ""}, "make them the same"),
        (NODEINFO | {"image": ""}, "image: is required"),
        (NODEINFO | {"image": 5}, r"spec: Expected `str`, got `int` - at `\$.image`"),
        (NODEINFO | {"limits": {"memory": "lots"}}, "limits.memory 'lots' is not a quantity"),
        (NODEINFO | {"environment": {"A": None}}, "spec: Expected `str`, got `null`"),
        (NODEINFO | {"labels": {"com.openfaas.scale.min": "many"}}, "com.openfaas.scale.min is 'many'"),
        (NODEINFO | {"secrets": ["../x"]}, "secret name"),
    ],
)
def test_what_cannot_be_a_function_is_refused_with_the_field(asked: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        spec_of("nodeinfo", "openfaas-fn", asked)


def test_a_name_that_no_function_can_have_is_refused() -> None:
    with pytest.raises(BadInput, match=r"function name 'a\.b' is not allowed"):
        spec_of("a.b", "fn", NODEINFO | {"name": "a.b"})
