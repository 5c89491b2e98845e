"""`stoker new` and `stoker template`, as processes, with the templates of this repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running_control import Shell, shell

from stoker_sdk.function import Resources
from stoker_sdk.stack import load_stack


@pytest.fixture
def stoker(tmp_path: Path) -> Shell:
    return shell(tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_writes_a_handler_folder_and_a_stack_file(stoker: Shell) -> None:
    done = stoker("new", "greet", "--lang", "python")
    assert done.code == 0, done.err
    assert names(stoker.folder) == [".gitignore", "greet", "stack.yml"]
    assert (stoker.folder / ".gitignore").read_text() == "template\nbuild\n.secrets\n"
    assert {"handler.py", "handler_test.py", "requirements.txt"} <= set(names(stoker.folder / "greet"))
    (function,) = load_stack(stoker.folder / "stack.yml", {}).functions
    assert (function.name, function.lang, function.handler) == ("greet", "python3", "./greet")
    assert function.image == "greet:latest"


def test_new_adds_to_a_stack_file_and_puts_a_prefix_before_the_image(stoker: Shell) -> None:
    stoker("new", "greet", "--lang", "python3")
    done = stoker("new", "shout", "--lang", "python3-http", "--append", "stack.yml", "--prefix", "me")
    assert done.code == 0, done.err
    functions = load_stack(stoker.folder / "stack.yml", {}).functions
    assert [(each.name, each.image) for each in functions] == [
        ("greet", "greet:latest"),
        ("shout", "me/shout:latest"),
    ]


def test_own_templates_are_found_beside_the_stack(stoker: Shell) -> None:
    stoker.file("template/mine/template.yml", "language: mine\nwelcome_message: Have fun\n")
    stoker.file("template/mine/function/main.x", "x")
    done = stoker("new", "greet", "--lang", "mine")
    assert done.code == 0 and "Have fun" in done.out
    assert names(stoker.folder / "greet") == ["main.x"]
    assert "mine" in [each["name"] for each in json.loads(stoker("template", "list", "--json").out)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Bad_Name", "--lang", "python3"), "function name 'Bad_Name' is not allowed"),
        (("../up", "--lang", "python3"), "function name '../up' is not allowed"),
        (("taken", "--lang", "python3"), "taken exists already"),
        (("greet", "--lang", "pyton3"), "template 'pyton3' does not exist"),
        (("greet", "--lang", "../python3"), "template name '../python3' is not allowed"),
        (("greet", "--lang", "python3", "--append", "none.yml"), "there is no file none.yml"),
        (("greet", "--lang", "python3", "--append", "bad.yml"), "bad.yml:1:5: is not YAML"),
        (("greet", "--lang", "python3", "--append", "has.yml"), "has a function 'greet' already"),
        (("greet", "--lang", "python3", "--gateway", "ftp://x"), "gateway 'ftp://x' is not an address"),
        (("greet", "--lang", "python3", "--handler", "../up"), "--handler '../up' is not allowed"),
        (("greet", "--lang", "python3", "--handler", "/tmp/x"), "--handler '/tmp/x' is not allowed"),
        (("greet", "--lang", "python3", "--prefix", "a\nb"), "is not allowed: it is the beginning of an image"),
        (("greet", "--lang", "python3", "--memory-limit", "lots"), "--memory-limit 'lots' is not a quantity"),
    ],
)
def test_what_cannot_be_made_leaves_nothing_behind(stoker: Shell, arguments: tuple[str, ...], words: str) -> None:
    stoker.file("taken/keep.txt", "kept")
    stoker.file("bad.yml", "a: [")
    stoker.file("has.yml", "provider:\n  name: openfaas\nfunctions:\n  greet:\n    image: x\n")
    before = {path: path.read_bytes() for path in stoker.folder.rglob("*") if path.is_file()}
    done = stoker("new", *arguments)
    assert done.code == 1 and words in done.err and "Traceback" not in done.err
    assert {path: path.read_bytes() for path in stoker.folder.rglob("*") if path.is_file()} == before
    assert names(stoker.folder) == ["bad.yml", "has.yml", "taken"]


def test_a_second_stack_file_is_not_written_over_the_first(stoker: Shell) -> None:
    stoker.file("stack.yaml", "mine")
    done = stoker("new", "greet", "--lang", "python3")
    assert done.code == 1 and "--append stack.yaml" in done.err
    assert names(stoker.folder) == ["stack.yaml"]


def test_new_takes_a_folder_and_limits_and_keeps_what_git_ignores_already(stoker: Shell) -> None:
    stoker.file(".gitignore", "/build/\n*.log")
    flags = ("--handler", "functions/greet", "--memory-limit", "64Mi", "--cpu-request", "100m", "--quiet")
    done = stoker("new", "greet", "--lang", "python3", *flags)
    assert (done.code, done.out) == (0, ""), done.err
    (function,) = load_stack(stoker.folder / "stack.yml", {}).functions
    assert function.handler == "./functions/greet" and (stoker.folder / "functions/greet/handler.py").is_file()
    assert function.limits == Resources(memory="64Mi") and function.requests == Resources(cpu="100m")
    assert (stoker.folder / ".gitignore").read_text() == "/build/\n*.log\ntemplate\n.secrets\n"


def test_new_lists_the_templates_and_says_what_is_missing(stoker: Shell) -> None:
    assert "python3-http" in stoker("new", "--list").out.splitlines()
    done = stoker("new", "greet")
    assert done.code == 2 and "--lang" in done.err


def test_template_list_shows_names_and_aliases(stoker: Shell) -> None:
    done = stoker("template", "list")
    assert done.code == 0 and "python3-http" in done.out and "python" in done.out
