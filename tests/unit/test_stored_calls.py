"""Stored calls: what is written is read again, and whatever else may lie in a stream is refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_gateway.queue.replay import changed_request
from stoker_gateway.queue.stored import BadCall, BodyRef, StoredCall, decode, encode, method_of
from stoker_gateway.queue.subjects import call_subject, consumer_name, is_call_id, key_and_id
from stoker_sdk.errors import BadInput
from stoker_sdk.messages import CallReplay
from stoker_sdk.names import FunctionKey

KEY = "greet.openfaas-fn"
CALL = StoredCall(1, "an-id", KEY, 1_700_000_000_000_000_000, "http://example.org/back")
HEAD = (
    b"POST /function/greet.openfaas-fn/a%2Fb?x=1 HTTP/1.1\r\nHost: gw\r\nX-Call-Id: an-id\r\nContent-Length: 3\r\n\r\n"
)


def test_a_call_is_read_as_it_was_written() -> None:
    call, request = decode(encode(CALL, HEAD, b"a\nb"))
    assert call == CALL
    assert request == HEAD + b"a\nb"
    assert method_of(request) == b"POST"


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        (b"", "line of JSON"),
        (b"no newline at all", "line of JSON"),
        (b"[]\n" + HEAD + b"abc", "first line"),
        (b'{"v":1}\n' + HEAD + b"abc", "first line"),
        (b'{"v":0,"id":"a"}\n' + HEAD + b"abc", "version 0"),
        (b'{"v":3}\nwhatever comes', "version 3, and this release reads 1 and 2"),
        (b'{"v":"1"}\n', "first line"),
        (b"\xff\xfe\n", "first line"),
        (encode(CALL, b"", b""), "no HTTP request"),
        (encode(CALL, b"GET / HTTP/1.1\r\n\r\n"), "no HTTP request"),
        (encode(CALL, HEAD.replace(b"/greet.", b"/other."), b"abc"), "another function"),
        (encode(CALL, HEAD, b"abcGET /function/greet.openfaas-fn HTTP/1.1\r\n\r\n"), "length"),
        (encode(CALL, HEAD, b"ab"), "length"),
        (encode(CALL, HEAD.replace(b"Content-Length: 3", b"Transfer-Encoding: chunked"), b"0\r\n\r\n"), "length"),
        (encode(CALL, HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n"), b"abc"), "length"),
        (encode(CALL, HEAD.replace(b"Host: gw", b"A: " + b"x" * 200_000), b"abc"), "no HTTP request"),
    ],
)
def test_what_is_no_call_is_refused_with_a_reason(payload: bytes, word: str) -> None:
    with pytest.raises(BadCall, match=word):
        decode(payload)


BODY = BodyRef("006b01a4b1-0", 3, 1, "ab" * 32)


def large(v: int = 2, body: BodyRef | None = BODY) -> StoredCall:
    return StoredCall(v, "an-id", KEY, 1, body=body)


def test_a_call_whose_body_is_elsewhere_has_a_version_of_its_own() -> None:
    call, request = decode(encode(large(), HEAD))
    assert call.body == BODY and request == HEAD


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        (encode(large(v=1), HEAD), "version 1, which does not go with where its body is"),
        (encode(large(body=None), HEAD, b"abc"), "version 2, which does not go with where its body is"),
        (encode(large(), HEAD, b"abc"), "length"),
        (encode(large(), HEAD.replace(b"Length: 3", b"Length: 4")), "length"),
        (encode(large(), HEAD.replace(b"Content-Length: 3\r\n", b"")), "length"),
        (encode(large(body=BodyRef("a.>", 3, 1, "")), HEAD), "first line"),
        (encode(large(body=BodyRef("a", 0, 0, "")), HEAD), "first line"),
    ],
)
def test_a_reference_to_a_body_that_cannot_be_is_refused(payload: bytes, word: str) -> None:
    with pytest.raises(BadCall, match=word):
        decode(payload)


@given(st.binary(max_size=300), st.integers(0, 200))
def test_no_bytes_make_it_fail_otherwise(noise: bytes, cut: int) -> None:
    for payload in (noise, encode(CALL, HEAD, b"abc")[:cut] + noise):
        try:
            call, _ = decode(payload)
        except BadCall:
            continue
        assert call.key == KEY


def test_subjects_carry_key_and_id() -> None:
    key = FunctionKey("openfaas-fn", "greet")
    assert key_and_id(call_subject(key, "an_ID-1")) == (key, "an_ID-1")
    assert consumer_name(key) == "openfaas-fn_greet"
    assert key_and_id("stoker.call.a.b") is None
    assert key_and_id("foreign.call.a.b.c") is None


@pytest.mark.parametrize("text", ["", "a.b", "a b", "*", ">", "x" * 65, "ä", "a\n"])
def test_an_id_that_could_change_a_subject_is_none(text: str) -> None:
    assert not is_call_id(text)


def test_a_replay_has_a_new_id_and_what_was_changed() -> None:
    changes = CallReplay({"X-Mode": "slow", "Host2": ""}, b"longer")
    request = changed_request(HEAD + b"abc", "new", changes)
    assert b"X-Call-Id: new\r\n" in request and b"an-id" not in request
    assert b"\r\nX-Mode: slow\r\n" in request
    decode(encode(CALL, request))
    assert request.endswith(b"Content-Length: 6\r\n\r\nlonger")


def test_a_replay_without_changes_keeps_the_body() -> None:
    request = changed_request(HEAD + b"abc", "new", CallReplay())
    assert request.startswith(b"POST /function/greet.openfaas-fn/a%2Fb?x=1 HTTP/1.1\r\nHost: gw\r\n")
    assert request.endswith(b"\r\n\r\nabc")


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"a": "b\r\nX: y"}, {"Content-Length": "9"}, {"x-call-id": "x"}])
def test_a_replay_cannot_forge_the_request(headers: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        changed_request(HEAD + b"abc", "new", CallReplay(headers))
