"""A function's history: what is kept, what a rollback finds, and how it is told."""

from __future__ import annotations

import base64
import os
import zlib

import msgspec
import pytest

from stoker_gateway.providers.kubernetes.history import packed, unpacked
from stoker_gateway.revisions import Kept, changes, earlier, extended, find, listed, with_content_of
from stoker_sdk.errors import BadInput, NotFound
from stoker_sdk.function import Condition, FunctionSpec, Resources
from stoker_sdk.names import FunctionKey

GREET = FunctionKey("openfaas-fn", "greet")


def kept(number: int, image: str = "", **fields: object) -> Kept:
    spec = FunctionSpec("greet", f"greet:{number}", "openfaas-fn", **fields)  # type: ignore[arg-type]
    return Kept(number, f"2026-01-31T12:00:{number:02}Z", spec, image)


def history(last: int, serving: int = 0, failed: tuple[int, ...] = (), **fields: object) -> list[Kept]:
    """As it is after so many deploys, one after the other."""
    made = [kept(1, **fields)]  # type: ignore[arg-type]
    for number in range(2, last + 1):
        made = extended(made, kept(number, **fields), failed=number - 1 in failed, serving=serving)  # type: ignore[arg-type]
    return made


def numbers(made: list[Kept]) -> list[int]:
    return [one.number for one in made]


def test_the_last_ten_are_kept() -> None:
    assert numbers(history(9)) == list(range(1, 10))
    assert numbers(history(25)) == list(range(16, 26))


def test_content_is_found_also_where_only_its_repetition_is_kept() -> None:
    made = [kept(4), msgspec.structs.replace(kept(5), automatic=True, rollback_to=3)]
    assert [found and found.number for found in (with_content_of(made, one) for one in (3, 4, 9))] == [5, 4, None]


def test_a_function_may_say_how_many() -> None:
    assert numbers(history(9, annotations={"stoker.dev/revisions": "3"})) == [7, 8, 9]
    for text in ("1", "0", "101", "many", "-3"):
        with pytest.raises(BadInput, match="revisions"):
            FunctionSpec("greet", "x", annotations={"stoker.dev/revisions": text}).check()


def test_fewer_are_kept_from_the_deploy_on_that_says_so() -> None:
    fewer = kept(11, annotations={"stoker.dev/revisions": "2"})
    assert numbers(extended(history(10), fewer, failed=False, serving=10)) == [10, 11]


def test_what_serves_is_kept_behind_any_number_of_failed_deploys() -> None:
    made = history(25, serving=4, failed=tuple(range(5, 25)))
    assert numbers(made) == [4, *range(17, 26)]
    assert earlier(GREET, made).number == 4


def test_long_ones_are_fewer() -> None:
    made = history(10, serving=1, env_vars={"LONG": "x" * 300_000})
    assert numbers(made) == [1, 7, 8, 9, 10]
    assert numbers(history(3, env_vars={"LONG": "x" * 2_000_000})) == [3]


def test_a_rollback_finds_a_number_or_names_those_that_there_are() -> None:
    assert find(GREET, history(12), 7).spec.image == "greet:7"
    for number in (0, 2, 13, 10**30):
        with pytest.raises(
            NotFound, match=f"'greet' has no revision {number} .*there are 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"
        ):
            find(GREET, history(12), number)


def test_without_a_number_it_is_the_newest_other_version_that_did_not_fail() -> None:
    assert earlier(GREET, history(5)).number == 4
    assert earlier(GREET, history(5, failed=(3, 4))).number == 2
    again = Kept(6, "2026-01-31T12:00:06Z", kept(5).spec)
    assert earlier(GREET, extended(history(5), again, failed=False, serving=5)).number == 4
    moved = Kept(6, "2026-01-31T12:00:06Z", kept(5).spec, "greet@sha256:1")
    assert earlier(GREET, extended(history(5), moved, failed=False, serving=5)).number == 5


def test_a_second_rollback_undoes_the_first() -> None:
    made = history(3)
    back = Kept(4, "2026-01-31T12:00:04Z", earlier(GREET, made).spec, rollback_to=2)
    assert earlier(GREET, extended(made, back, failed=False, serving=3)).number == 3


@pytest.mark.parametrize("made", [history(1), history(3, failed=(1, 2))], ids=["the first", "all failed"])
def test_there_may_be_nothing_to_go_back_to(made: list[Kept]) -> None:
    with pytest.raises(NotFound, match="'greet' has no earlier revision"):
        earlier(GREET, made)


def test_changes_are_named_by_field_without_their_values() -> None:
    before = kept(1, env_vars={"LEVEL": "debug", "SAME": "x", "GONE": ""}, limits=Resources(memory="1Mi"), labels={})
    after = kept(1, env_vars={"LEVEL": "info", "SAME": "x"}, limits=Resources(memory="1Mi", cpu="1"), secrets=["key"])
    assert changes(before, after) == ["envVars.GONE", "envVars.LEVEL", "limits.cpu", "secrets"]
    assert changes(kept(1), kept(2)) == ["image"]
    assert changes(kept(1, "greet@sha256:1"), kept(1, "greet@sha256:2")) == ["image"]
    assert changes(kept(1), kept(1)) == []


def test_the_list_says_what_serves_and_what_failed() -> None:
    def shown(condition: Condition) -> list[tuple[int, bool, bool]]:
        made = listed(history(4, failed=(2,)), condition)
        return [(one.number, one.serving, one.failed) for one in made]

    before = [(1, False, False), (2, False, True)]
    assert shown(Condition("ready", 4, serving=4)) == [*before, (3, False, False), (4, True, False)]
    assert shown(Condition("failed", 4, serving=3)) == [*before, (3, True, False), (4, False, True)]
    assert shown(Condition("deploying", 4, serving=3)) == [*before, (3, True, False), (4, False, False)]
    assert shown(Condition("zero", 4)) == [*before, (3, False, False), (4, True, False)]
    assert shown(Condition("failed", 4)) == [*before, (3, False, False), (4, False, True)]


def test_the_list_has_the_image_as_it_was_given_and_what_it_meant() -> None:
    (one,) = listed([kept(1, "docker.io/library/greet@sha256:ab")], Condition("ready", 1, serving=1))
    assert (one.image, one.digest) == ("greet:1", "sha256:ab")


def test_an_annotation_holds_the_history() -> None:
    made = history(10, env_vars={"LEVEL": "debug"}, annotations={"note": "any\ntext ✓"})
    text = packed(made, 64 * 1024)
    assert unpacked(text) == made
    assert len(text) < len(msgspec.json.encode(made[0])) * 5


def test_the_oldest_give_way_when_there_is_no_room() -> None:
    made = history(10, env_vars={"NOISE": os.urandom(100).hex()})
    noisy = [msgspec.structs.replace(one, image=os.urandom(500).hex()) for one in made]
    text = packed(noisy, 3000)
    assert len(text) <= 3000
    few = unpacked(text)
    assert few and few == noisy[-len(few) :] and len(few) < 10
    assert packed(noisy, 100) == ""


@pytest.mark.parametrize(
    "text",
    ["", "no base64!", "é", base64.b64encode(b"no zlib").decode(), base64.b64encode(zlib.compress(b"[3]")).decode()],
)
def test_an_annotation_that_somebody_spoilt_is_no_history(text: str) -> None:
    assert unpacked(text) == []


def test_an_annotation_that_unpacks_without_end_is_not_followed() -> None:
    assert unpacked(base64.b64encode(zlib.compress(b" " * (80 * 1024 * 1024))).decode()) == []
