"""Strategies for what is nearly right: JSON with something wrong in it, and bytes that were changed on the way."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

NAMES = st.one_of(
    st.sampled_from(
        ["greet", "../x", "..", ".", "a/b", "%2e%2e", "", "x" * 64, "x" * 5000, "A", "a_b", "a.b", "-a", "ü",
         "openfaas-fn", "kube-system", "openfaas", "dev", "null", "\0", "a\nb", "a b", "\ud800"]
    ),
    st.text(max_size=20),
)  # fmt: skip

_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), NAMES,
    st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, "1" * 5000, "\ud800", "\U0010ffff"]),
)  # fmt: skip
JUNK = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4))


@st.composite
def nearly(draw: st.DrawFn, good: dict[str, Any]) -> bytes:
    """The JSON of an object of which some values were changed, and sometimes some bytes."""
    value: Any = dict(good)
    for key in draw(st.lists(st.sampled_from(sorted(good)), max_size=3)):
        change = draw(st.integers(0, 3))
        if change == 0:
            value.pop(key, None)
        elif change == 1:
            value[key.swapcase()] = value.pop(key, None)
        else:
            value[key] = draw(JUNK)
    if draw(st.integers(0, 9)) == 0:
        value = draw(JUNK)
    text = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return draw(changed(text)) if draw(st.booleans()) else text


_PIECES = [
    b"{",
    b"}",
    b"[" * 2000,
    b'"',
    b"\\",
    b"\\u",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"null",
    b"1e999",
    b",",
    b":",
    b"-",
]


@st.composite
def changed(draw: st.DrawFn, data: bytes, pieces: tuple[bytes, ...] = tuple(_PIECES), most: int = 3) -> bytes:
    """The bytes, some of which were replaced, removed, doubled, or got something put between them."""
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 30)))
        change = draw(st.sampled_from(["put", "remove", "double", "byte", "cut"]))
        if change == "put":
            data = data[:at] + draw(st.sampled_from(pieces)) + data[at:]
        elif change == "remove":
            data = data[:at] + data[to:]
        elif change == "double":
            data = data[:to] + data[at:to] + data[to:]
        elif change == "byte":
            data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
        else:
            data = data[:at]
    return data
