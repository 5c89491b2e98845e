"""Which paths are clean, and where the others lead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_gateway.control.paths import clean_path


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/a/b.c/..d/...", "/a%2Fb", "/%2e%2ea", "/a\\b"])
def test_a_clean_path_stays_as_it_is(path: str) -> None:
    assert clean_path(path) == path


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("//", "/"),
        ("//a//b//", "/a/b/"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../../a", "/a"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("", "/"),
        ("/./\\host", "/%5Chost"),
    ],
)
def test_an_unclean_path_is_cleaned(path: str, cleaned: str) -> None:
    assert clean_path(path) == cleaned


@given(st.text(alphabet="/.\\a%2eE", max_size=20))
def test_the_answer_is_clean_and_leads_to_no_other_host(path: str) -> None:
    cleaned = clean_path("/" + path)
    assert clean_path(cleaned) == cleaned
    assert cleaned.startswith("/")
    if cleaned != "/" + path:
        assert not cleaned.startswith(("//", "/\\"))
