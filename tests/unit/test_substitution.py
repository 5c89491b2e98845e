"""Environment substitution, as in contract section 9.3."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_sdk.errors import BadInput
from stoker_sdk.substitution import substitute

NAMES = st.from_regex(re.compile(r"[A-Z_][A-Z0-9_]{0,8}", re.ASCII), fullmatch=True)
PLAIN = st.text().filter(lambda text: not re.search(r"\$\{|\$\$|\\", text) and not text.endswith("$"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${V}", "value"),
        ("a${V}b${V}", "avaluebvalue"),
        ("${NOTHING}", ""),
        ("${EMPTY:-d}", "d"),
        ("${V:-d}", "value"),
        ("${NOTHING:-d}", "d"),
        ("${NOTHING:=d}", "d"),
        ("${NOTHING=d}", "d"),
        ("${NOTHING:?d}", "d"),
        ("${NOTHING:+d}", "d"),
        ("${NOTHING:-}", ""),
        ("${NOTHING:-http://x:80/?a=b}", "http://x:80/?a=b"),
        ("${NOTHING:-${V}!}", "value!"),
        ("${NOTHING:-${NOTHING:-deep}}", "deep"),
        ("${V^^} ${V^} ${UPPER,,} ${UPPER,} ${#V}", "VALUE Value upper uPPER 5"),
        ("$V stays", "$V stays"),
        ("cost: 5$", "cost: 5$"),
        ("$$", "$"),
        ("$${V}", "${V}"),
        ("$$${V}", "$value"),
        ("a\\\\b\\/c\\n", "a\\b/c\\n"),
        ("# ${V}\n", "# value\n"),
    ],
)
def test_each_form_gives_what_the_contract_says(text: str, expected: str) -> None:
    environment = {"V": "value", "EMPTY": "", "UPPER": "UPPER"}
    assert substitute(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ok\n  ${V", "2:3: '${V' cannot be substituted: there is no '}'"),
        ("${}", "1:1: '${}' cannot be substituted: a variable's name must follow"),
        ("${V-d}", "1:1: '${V-d}' cannot be substituted: only ${V}"),
        ("${V/a/b}", "only ${V}"),
        ("${NOTHING:-${V}", "there is no '}'"),
        ("${1}", "a variable's name must follow"),
        ("${A:-" * 50 + "}" * 50, "nested more than 20 deep"),
    ],
)
def test_what_is_no_form_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        substitute(text, {"V": "value"})


@given(PLAIN)
def test_text_without_references_stays_as_it_is(text: str) -> None:
    assert substitute(text, {}) == text


@given(NAMES, st.text(min_size=1), PLAIN, PLAIN)
def test_a_value_comes_through_unchanged_and_is_not_substituted_again(
    name: str, value: str, before: str, after: str
) -> None:
    assert substitute(f"{before}${{{name}}}{after}", {name: value}) == before + value + after


@given(st.text(alphabet="${}:-=^,#AB\\/ \n"))
def test_any_text_is_substituted_or_refused_and_nothing_else(text: str) -> None:
    try:
        substitute(text, {"A": "a", "B": "b"})
    except BadInput as error:
        assert re.match(r"\d+:\d+: ", str(error))
