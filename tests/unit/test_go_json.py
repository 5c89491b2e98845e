"""JSON is read as Go's decoder reads it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_gateway.control import go_json
from stoker_sdk.errors import BadInput
from stoker_sdk.function import FunctionSpec, Resources
from stoker_sdk.messages import ScaleServiceRequest, Secret


def test_keys_match_in_any_case_down_to_the_last_struct() -> None:
    maps = b'"ENVvars": {"Key": "v", "KEY": "w"}, "Limits": {"MEMORY": "1", "AMD.com/GPU": "2"}'
    spec = go_json.decode(FunctionSpec, b'{"SERVICE": "a", ' + maps + b"}")
    assert spec.service == "a"
    assert spec.env_vars == {"Key": "v", "KEY": "w"}
    assert spec.limits == Resources(memory="1", amd_gpu="2")


def test_the_last_of_two_spellings_counts() -> None:
    assert go_json.decode(FunctionSpec, b'{"service": "a", "Service": "b"}').service == "b"


def test_null_and_absence_are_the_zero_value() -> None:
    for body in (
        b"null",
        b"{}",
        b'{"service": null, "labels": null, "limits": null, "readOnlyRootFilesystem": null}',
    ):
        assert go_json.decode(FunctionSpec, body) == FunctionSpec("")


def test_null_inside_a_map_or_a_list_is_an_empty_text() -> None:
    spec = go_json.decode(FunctionSpec, b'{"envVars": {"A": null}, "secrets": [null, "b"]}')
    assert (spec.env_vars, spec.secrets) == ({"A": ""}, ["", "b"])


def test_unknown_keys_of_any_shape_are_ignored() -> None:
    assert go_json.decode(Secret, b'{"name": "a", "x": [{"y": null}], "": 1}').name == "a"


def test_raw_bytes_are_base64() -> None:
    assert go_json.decode(Secret, b'{"rawValue": "AP8="}').raw_value == b"\x00\xff"


@pytest.mark.parametrize(
    "body",
    [b"", b" \n", b"{", b"{} {}", b"[]", b'"text"', b"7", b"true", b'{"service": 1}', b'{"service": ["a"]}',
     b'{"labels": "a"}', b'{"labels": {"a": {}}}', b'{"limits": []}', b"\xff", b'{"service": "\\ud800"}',
     b"[" * 100_000, b'{"a":' * 100_000],
)  # fmt: skip
def test_what_go_refuses_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(BadInput) as caught:
        go_json.decode(FunctionSpec, body)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_numbers_are_whole_and_no_text() -> None:
    assert go_json.decode(ScaleServiceRequest, b'{"replicas": 3}').replicas == 3
    for number in (b"1.5", b'"3"', b"true", b"null", b"1e400", b"{}"):
        with pytest.raises(BadInput):
            go_json.decode(ScaleServiceRequest, b'{"replicas": ' + number + b"}")


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_in_another_way(body: bytes) -> None:
    decode_or_refuse(body)


KEYS = st.sampled_from(["service", "labels", "limits", "secrets", "envVars", "memory", "readOnlyRootFilesystem"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


def nest(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=4)


@given(st.recursive(SCALARS, nest, max_leaves=10))
def test_no_json_makes_it_fail_in_another_way(value: object) -> None:
    decode_or_refuse(json.dumps(value).encode())


def decode_or_refuse(body: bytes) -> None:
    try:
        go_json.decode(FunctionSpec, body)
    except BadInput:
        pass
