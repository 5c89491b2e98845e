"""Keys and kept answers, as values: what a key may be, which requests are the same, what is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_gateway.proxy.entry import Entry
from stoker_gateway.queue import kept, keys
from stoker_gateway.queue.kept import BadAnswer, KeptAnswer, block_of, fields_of, result_seconds
from stoker_gateway.queue.keys import Claim, check_key, key_token, keys_of, request_digest
from stoker_gateway.routes import Route, route_annotations
from stoker_sdk.errors import BadInput
from stoker_sdk.keeping import check_idempotent, check_keep

ANSWER = KeptAnswer(1, 201, [("Content-Type", "text/plain"), ("X-Odd", "\xe9\t ")], 3)


@pytest.mark.parametrize("key", [b"a", b"x" * 255, b'"quoted, with a comma"', b"\xc3\xa9 \xff"])
def test_any_bytes_that_are_no_control_characters_are_a_key(key: bytes) -> None:
    assert check_key([key]) == key
    assert key_token(key).isalnum() and key_token(key) != key_token(key + b" ")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([b""], "is empty"),
        ([b"x" * 256], "has 256 bytes"),
        ([b"a\tb"], "has a control character"),
        ([b"\x7f"], "has a control character"),
        ([b"a", b"a"], "there are 2 Idempotency-Key headers"),
    ],
)
def test_other_keys_are_refused_with_the_reason(found: list[bytes], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        check_key(found)


def test_the_header_is_found_in_any_spelling() -> None:
    fields = [(b"Idempotency-Key", b"a"), (b"X-Idempotency-Ke", b"b"), (b"IDEMPOTENCY-KEY", b"c")]
    assert keys_of(fields) == [b"a", b"c"]


@given(st.tuples(*[st.binary(max_size=5)] * 4), st.tuples(*[st.binary(max_size=5)] * 4))
def test_only_the_same_request_has_the_same_digest(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> None:
    def digest(kind: bytes, method: bytes, path: bytes, body: bytes) -> str:
        return request_digest(kind.hex().encode(), method.hex().encode(), b"/" + path, [body])

    assert (digest(*one) == digest(*other)) == (one == other)


def test_pieces_of_a_body_and_a_missing_slash_make_no_difference() -> None:
    whole = request_digest(b"sync", b"POST", b"/?a=1", [b"body"])
    assert request_digest(b"sync", b"POST", b"?a=1", [b"bo", b"", b"dy"]) == whole
    assert request_digest(b"async", b"POST", b"/?a=1", [b"body"]) != whole


def test_a_claim_is_read_as_it_was_written() -> None:
    claim = Claim(1, "an-id", "d" * 64, 1_700_000_000_000_000_000, 1.5, keys.KEPT)
    assert keys.decode(keys.encode(claim)) == claim


@given(st.binary(max_size=50))
def test_an_answer_is_read_as_it_was_written(body: bytes) -> None:
    assert kept.decode(kept.encode(ANSWER, body)) == (ANSWER, body)


def test_header_lines_become_fields_and_lines_again() -> None:
    block = b"Content-Type: text/plain\r\nX-Empty: \r\nX-Odd: \xe9: b\r\n"
    assert fields_of(block) == [("Content-Type", "text/plain"), ("X-Empty", ""), ("X-Odd", "\xe9: b")]
    assert block_of(fields_of(block)) == block


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}\n",
        b'{"v":2,"status":200}\n',
        b'{"v":1,"status":99}\n',
        b'{"v":1,"status":1000}\n',
        b'{"v":1,"status":200,"fields":[["A","b\\r\\nSet-Cookie: c"]]}\n',
        b'{"v":1,"status":200,"fields":[["A:","b"]]}\n',
        b'{"v":1,"status":200,"fields":[["A","\\u20ac"]]}\n',
        b"\xff\n",
    ],
)
def test_what_is_no_answer_is_never_sent(payload: bytes) -> None:
    with pytest.raises(BadAnswer):
        kept.decode(payload)


@given(st.binary(max_size=200))
def test_no_bytes_make_reading_fail_otherwise(noise: bytes) -> None:
    try:
        kept.decode(noise)
    except BadAnswer:
        pass


def test_durations_are_bounded() -> None:
    assert (check_keep("1s"), check_keep("168h"), check_keep("90")) == (1, 7 * 86400, 90)
    for text in ("", "0", "0.5s", "169h", "soon", "-1s"):
        with pytest.raises(BadInput, match=r"168h|is not a duration"):
            check_keep(text)


def test_only_true_and_false_are_idempotent() -> None:
    assert [check_idempotent(text) for text in ("true", "False", "")] == [True, False, False]
    with pytest.raises(BadInput, match="'yes'"):
        check_idempotent("yes")


def test_the_settings_reach_workers_and_proxies_and_bad_ones_count_as_not_there() -> None:
    written = {"stoker.dev/result": "2h", "stoker.dev/idempotent": "true", "other": "x"}
    annotations = route_annotations(written)
    assert annotations == {"stoker.dev/result": "2h", "stoker.dev/idempotent": "true"}
    assert result_seconds(annotations) == 7200 and result_seconds({"stoker.dev/result": "soon"}) == 0
    entry = Entry("f.openfaas-fn")
    entry.update(Route("f.openfaas-fn", 10, 0, [], annotations=annotations))
    assert entry.idempotent
    entry.update(Route("f.openfaas-fn", 10, 0, [], annotations={"stoker.dev/idempotent": "perhaps"}))
    assert not entry.idempotent
