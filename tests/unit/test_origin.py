"""Names of functions that come from repositories: two different origins never share one."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from stoker_sdk.errors import BadInput
from stoker_sdk.names import check_function_name
from stoker_sdk.origin import RESERVED_LABELS, Origin, check_origin, origin_of, owner_label

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

# Few letters and short parts, so that what could be confused does meet; and now and then long ones.
FORGE = st.one_of(
    st.text("aB1-_.", min_size=1, max_size=5),
    st.text("ab-", min_size=30, max_size=100),
    st.sampled_from(["xn", "a-b", "b-c", "pr-1", "www"]),
).filter(lambda text: text not in (".", ".."))
FUNCTIONS = st.one_of(
    st.text("ab1-", min_size=1, max_size=5), st.text("ab-", min_size=55, max_size=63), st.just("xn")
).filter(lambda text: re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text) is not None)
BRANCHES = st.one_of(
    st.just(""),
    st.text("aA1-_./é", max_size=5),
    st.text("ab-/", min_size=40, max_size=80),
    st.sampled_from(["pr-1", "pr-2", "main", "feature/x", "feature-x"]),
)
ORIGINS = st.builds(
    lambda owner, repository, function, variant: check_origin(
        owner, repository, function, branch=variant[0], pull=variant[1]
    ),
    FORGE,
    FORGE,
    FUNCTIONS,
    st.one_of(st.tuples(BRANCHES, st.just(0)), st.tuples(st.just(""), st.integers(0, 20))),
)


def cut_again(origin: Origin) -> st.SearchStrategy[Origin]:
    """Origins with the same characters, cut into parts elsewhere: what a careless join would give one name."""
    text = "-".join([origin.function, origin.repository, origin.owner, origin.branch])

    def cut(places: tuple[int, int, int]) -> Origin:
        first, second, third = sorted(place % (len(text) + 1) for place in places)
        parts = text[:first], text[first:second], text[second:third], text[third:]
        try:
            return check_origin(parts[2].strip("-"), parts[1].strip("-"), parts[0].strip("-"), branch=parts[3])
        except BadInput:
            return origin

    number = st.integers(0, 300)
    return st.tuples(number, number, number).map(cut)


PAIRS = st.one_of(
    st.tuples(ORIGINS, ORIGINS), ORIGINS.flatmap(lambda origin: st.tuples(st.just(origin), cut_again(origin)))
)


@settings(max_examples=500)
@given(PAIRS)
@example((check_origin("a-b", "r", "c"), check_origin("a", "r", "b-c")))
@example((check_origin("a", "r", "f", branch="pr-1"), check_origin("a", "r", "f", pull=1)))
@example((check_origin("a_b", "r", "f"), check_origin("a-b", "r", "f")))
@example((check_origin("a", "r", "f", branch="Main"), check_origin("a", "r", "f", branch="main")))
@example((check_origin("a", "r-", "f"), check_origin("-a", "r", "f")))
def test_two_different_origins_never_share_a_name_nor_a_host_with_a_path(pair: tuple[Origin, Origin]) -> None:
    one, other = pair
    assume(one != other)
    assert one.name != other.name
    if (one.host_label, one.path) == (other.host_label, other.path):
        # Two repositories of one owner: the one case that the deploy decides (tests/unit/test_endpoints.py).
        assert one._replace(repository="") == other._replace(repository="")
        assert not (one.branch or one.pull)


@given(ORIGINS)
def test_names_are_labels_everywhere(origin: Origin) -> None:
    assert DNS_1035.fullmatch(check_function_name(origin.name))
    assert DNS_1123.fullmatch(origin.host_label)
    assert not origin.name.startswith("xn--")
    assert not origin.host_label.startswith("xn--")


@given(st.lists(ORIGINS, min_size=2, max_size=8, unique=True))
def test_a_host_belongs_to_one_owner(origins: list[Origin]) -> None:
    owners: dict[str, str] = {}
    for origin in origins:
        assert owners.setdefault(origin.host_label, origin.owner) == origin.owner


@given(ORIGINS)
def test_an_origin_reads_back_from_what_is_stored(origin: Origin) -> None:
    assert origin_of(origin.annotations) == origin


@given(FORGE, FORGE, FUNCTIONS)
def test_the_case_of_owner_and_repository_does_not_matter(owner: str, repository: str, function: str) -> None:
    assert check_origin(owner.upper(), repository.upper(), function) == check_origin(owner, repository, function)
    assert owner_label(owner.upper()) == owner_label(owner)


def test_plain_origins_have_plain_names() -> None:
    origin = check_origin("Alice", "Shop", "greet")
    assert (origin.name, origin.host_label, origin.path) == ("greet--shop--alice", "alice", "/greet")
    branch = check_origin("alice", "shop", "greet", branch="dev")
    assert (branch.name, branch.host_label, branch.path) == ("greet--shop--alice--dev", "dev--shop--alice", "/greet")
    preview = check_origin("alice", "shop", "greet", pull=7)
    assert (preview.name, preview.host_label) == ("greet--shop--alice--pr-7", "pr-7--shop--alice")


def test_other_names_have_words_and_a_hash() -> None:
    assert re.fullmatch(r"greet-site-io-alice---[a-z2-7]{20}", check_origin("alice", "site.io", "greet").name)
    assert re.fullmatch(r"alice-corp---[a-z2-7]{20}", owner_label("Alice_Corp"))
    assert re.fullmatch(r"x-2048-b-a---[a-z2-7]{20}", check_origin("a", "b", "2048").name)


@pytest.mark.parametrize("label", sorted(RESERVED_LABELS))
def test_an_owner_does_not_get_a_host_that_looks_like_the_platform(label: str) -> None:
    assert owner_label(label.upper()).startswith(f"{label}---")


@pytest.mark.parametrize(
    "parts",
    [
        ("", "r", "f"),
        ("a/b", "r", "f"),
        ("a", "..", "f"),
        ("a", "r", "F"),
        ("a" * 256, "r", "f"),
        ("á", "r", "f"),
        ("a\n", "r", "f"),
        ("\u212a", "r", "f"),  # the Kelvin sign, whose lower case is a plain k
    ],
)
def test_what_is_no_name_is_refused(parts: tuple[str, str, str]) -> None:
    with pytest.raises(BadInput):
        check_origin(*parts)


@pytest.mark.parametrize("branch", ["a b", "a\n", "\ud800", "b" * 1025])
def test_what_is_no_branch_is_refused(branch: str) -> None:
    with pytest.raises(BadInput, match="branch"):
        check_origin("a", "r", "f", branch=branch)


def test_a_stored_pull_request_must_be_a_number() -> None:
    with pytest.raises(BadInput, match="pull request's number"):
        origin_of(check_origin("a", "r", "f").annotations | {"stoker.dev/pull": "-1"})
    assert origin_of({"stoker.dev/owner": "a"}) is None
    assert origin_of(None) is None
