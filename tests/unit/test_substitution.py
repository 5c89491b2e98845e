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
        ("${PATHS#a/}", "b/c.tar.gz"),
        ("${PATHS#*/}", "b/c.tar.gz"),
        ("${PATHS##*/}", "c.tar.gz"),
        ("${PATHS%.*}", "a/b/c.tar"),
        ("${PATHS%%.*}", "a/b/c"),
        ("${PATHS#[abc]?}", "b/c.tar.gz"),
        ("${PATHS#[!a]}", "a/b/c.tar.gz"),
        ("${PATHS#nothing}", "a/b/c.tar.gz"),
        ("${V:1}", "alue"),
        ("${V:1:2}", "al"),
        ("${V: -2}", "ue"),
        ("${V:9:9}", ""),
        ("${PATHS/\\//-}", "a-b/c.tar.gz"),
        ("${PATHS//\\//-}", "a-b-c.tar.gz"),
        ("${V/#va/x}", "xlue"),
        ("${V/%ue/x}", "valx"),
        ("${V/#ue/x}${V/lu}${V//nothing/x}", "valuevaevalue"),
        ("${V/l/${UPPER}}", "vaUPPERue"),
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
    environment = {"V": "value", "EMPTY": "", "UPPER": "UPPER", "PATHS": "a/b/c.tar.gz"}
    assert substitute(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ok\n  ${V", "2:3: '${V' cannot be substituted: there is no '}'"),
        ("${}", "1:1: '${}' cannot be substituted: a variable's name must follow"),
        ("${V-d}", "1:1: '${V-d}' cannot be substituted: only ${V}"),
        ("${V/a/b", "there is no '}'"),
        ("${V:a}", "an offset and a length are written as ${V:2:3}"),
        ("${V: - 1}", "an offset and a length are written as ${V:2:3}"),
        ("${V#" + "*" * 101 + "}", "the pattern has more than 100 characters"),
        ("${NOTHING:-${V}", "there is no '}'"),
        ("${1}", "a variable's name must follow"),
        ("${A:-" * 50 + "}" * 50, "nested more than 20 deep"),
    ],
)
def test_what_is_no_form_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        substitute(text, {"V": "value"})


def test_a_short_text_that_stands_for_a_very_long_one_is_refused() -> None:
    with pytest.raises(BadInput, match=r"1:[0-9]+: .* the references stand for more than 4 MiB"):
        substitute("${V}" * 1000, {"V": "x" * 100_000})


@given(PLAIN)
def test_text_without_references_stays_as_it_is(text: str) -> None:
    assert substitute(text, {}) == text


@given(NAMES, st.text(min_size=1), PLAIN, PLAIN)
def test_a_value_comes_through_unchanged_and_is_not_substituted_again(
    name: str, value: str, before: str, after: str
) -> None:
    assert substitute(f"{before}${{{name}}}{after}", {name: value}) == before + value + after


@given(st.text(alphabet="${}:-=^,#%*?[]1AB\\/ \n"))
def test_any_text_is_substituted_or_refused_and_nothing_else(text: str) -> None:
    try:
        substitute(text, {"A": "a", "B": "b"})
    except BadInput as error:
        assert re.match(r"\d+:\d+: ", str(error))
