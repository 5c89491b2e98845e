"""Adding a function to a stack file as text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_cli.stack_file import NewFunction, appended_stack_text, new_stack_text
from stoker_sdk.errors import BadInput, Conflict
from stoker_sdk.function import Resources
from stoker_sdk.stack import parse_stack

HEAD = "provider:\n  name: openfaas\n"


def append(text: str, name: str = "shout") -> str:
    return appended_stack_text(text, "stack.yml", NewFunction(name, "python3", f"{name}:latest"))


def test_a_new_stack_is_read_back() -> None:
    new = NewFunction("greet", "python3", "me/greet:latest", limits={"memory": "64Mi", "cpu": ""})
    stack = parse_stack(new_stack_text(new, "https://gw"), {})
    assert stack.gateway == "https://gw" and stack.warnings == ()
    (function,) = stack.functions
    assert function.limits == Resources(memory="64Mi") and function.requests is None
    assert (function.name, function.lang, function.handler, function.image) == (
        "greet",
        "python3",
        "./greet",
        "me/greet:latest",
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("functions:\n  a:\n    image: x", "functions:\n  a:\n    image: x\n{}"),
        (
            "functions:\n  a:\n    image: x # why\n\n# end\n",
            "functions:\n  a:\n    image: x # why\n{}\n# end\n",
        ),
        (
            "functions:\n  a:\n    labels:\n      x: y\nconfiguration:\n  copy: [b]\n",
            "functions:\n  a:\n    labels:\n      x: y\n{}configuration:\n  copy: [b]\n",
        ),
        (
            "functions:\n  a:\n    secrets:\n    - x\n    - y\nversion: 1.0\n",
            "functions:\n  a:\n    secrets:\n    - x\n    - y\n{}version: 1.0\n",
        ),
        (
            "functions:\n  a:\n    fprocess: |\n      cat\n      dog\nversion: 1.0\n",
            "functions:\n  a:\n    fprocess: |\n      cat\n      dog\n{}version: 1.0\n",
        ),
        ("functions:\n  a: {image: x,\n    lang: y}\n", "functions:\n  a: {image: x,\n    lang: y}\n{}"),
        ("functions:\n  a:\n", "functions:\n  a:\n{}"),
        ("functions:\n", "functions:\n{}"),
        ("functions: # none yet\nversion: 1.0\n", "functions: # none yet\n{}version: 1.0\n"),
    ],
)
def test_the_entry_goes_to_the_end_of_functions_and_the_rest_stays(before: str, after: str) -> None:
    entry = "  shout:\n    lang: python3\n    handler: ./shout\n    image: shout:latest\n"
    text = append(HEAD + before)
    assert text == HEAD + after.replace("{}", entry)
    assert parse_stack(text, {}).functions[-1].name == "shout"


def test_the_indent_of_the_file_is_kept() -> None:
    text = append(HEAD + "functions:\n    a:\n        image: x\n")
    assert "\n    shout:\n      lang: python3\n" in text
    assert [function.name for function in parse_stack(text, {}).functions] == ["a", "shout"]


@given(st.lists(st.from_regex(re.compile("[a-z]{1,8}"), fullmatch=True), unique=True, min_size=1, max_size=6))
def test_functions_that_are_added_one_by_one_are_all_there(names: list[str]) -> None:
    text = new_stack_text(NewFunction(names[0], "python3", "x:1"))
    for name in names[1:]:
        text = append(text, name)
    assert [function.name for function in parse_stack(text, {}).functions] == names


def test_a_function_that_is_there_already_is_refused() -> None:
    with pytest.raises(Conflict, match="has a function 'a' already"):
        append(HEAD + "functions:\n  a: {}\n", "a")


@pytest.mark.parametrize(
    ("text", "words"), [(HEAD, "has no `functions`"), (HEAD + "functions: {a: {}}", "is written in braces")]
)
def test_a_file_that_cannot_be_added_to_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        append(text)
