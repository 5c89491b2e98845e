"""What is known about a handler without running it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from stoker_builder.requirements import normalise
from stoker_builder.source import check_entry, check_syntax, defines, has_tests, is_test
from stoker_sdk.errors import BadInput


@pytest.mark.parametrize(
    "source",
    [
        "def handle(req): pass",
        "async def handle(event, context): pass",
        "handle = lambda req: req",
        "handle: object = print",
        "first, (handle, last) = 1, (2, 3)",
        "from .other import handle",
        "from .other import run as handle",
        "from .other import *",
        "class handle: pass",
        "try:\n    from fast import handle\nexcept ImportError:\n    pass",
        "try:\n    import fast\nexcept ImportError:\n    def handle(req): pass",
        "if True:\n    pass\nelse:\n    def handle(req): pass",
    ],
)
def test_handle_is_found_however_it_is_bound(source: str) -> None:
    assert defines(ast.parse(source), "handle")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "def handler(req): pass",
        "class A:\n    def handle(self): pass",
        "def f():\n    handle = 1",
        "handle: int",
    ],
)
def test_handle_elsewhere_does_not_count(source: str) -> None:
    assert not defines(ast.parse(source), "handle")


def test_a_handler_without_handle_is_refused_with_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("def handler(req): pass\n")
    with pytest.raises(BadInput, match=r"handler\.py does not define handle: write `def handle\(req\):`"):
        check_entry(tmp_path, "handler")


def test_a_missing_handler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"handler\.py is missing in the handler folder"):
        check_entry(tmp_path, "handler")


def test_a_handler_may_be_a_package(tmp_path: Path) -> None:
    (tmp_path / "handler").mkdir()
    (tmp_path / "handler" / "__init__.py").write_text("def handle(req): pass\n")
    check_entry(tmp_path, "handler")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = 1\ndef broken(:\n", r"deep/bad\.py:2: invalid syntax"),
        (b"\n\nreturn 1\n", r"deep/bad\.py:3: 'return' outside function"),
        (b"a = '\0'\n", r"deep/bad\.py:1: "),
        (b"x = 'caf\xe9'\n", r"deep/bad\.py:1: "),
        (b"(" * 5000, r"deep/bad\.py:1: "),
        (b"-" * 200_000 + b"1", r"deep/bad\.py:1: "),
    ],
)
def test_what_does_not_compile_is_refused_with_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "bad.py").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        check_syntax(tmp_path)


def test_test_files_are_known_by_pytests_names(tmp_path: Path) -> None:
    assert is_test(Path("a/handler_test.py")) and is_test(Path("test_handler.py"))
    assert not is_test(Path("tester.py")) and not is_test(Path("test_data.json"))
    assert not has_tests(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "test_it.py").touch()
    assert has_tests(tmp_path)


def test_only_lines_that_count_are_left_of_requirements() -> None:
    text = "# head\n\n  humanize ==  4.0  # why\r\n--hash-free\nname @ https://host/x#egg=x\nlong \\\n  >=1\n"
    assert normalise(text) == "humanize == 4.0\n--hash-free\nname @ https://host/x#egg=x\nlong >=1\n"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "  \n\t# x"])
def test_requirements_without_a_package_are_empty(text: str) -> None:
    assert normalise(text) == ""


@pytest.mark.parametrize(
    "line",
    [
        "-r other.txt",
        "-rother.txt",
        "--requirement=other.txt",
        "-c constraints.txt",
        "--constraint x",
        "-e .",
        "--editable .",
        "./wheels/a.whl",
        "../up",
        "/etc/passwd",
        "~/x",
        "file:///etc/passwd",
        "name @ file:///etc",
        "name @ ./x",
    ],
)
def test_requirements_that_lead_to_other_files_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(BadInput, match=r"requirements\.txt:3: .* leads to another file"):
        normalise(f"# first\nhumanize\n{line}\n")


@pytest.mark.parametrize(
    "line", ["--extra-index-url https://host/simple", "--no-binary humanize", "requests[socks]>=2"]
)
def test_options_of_the_index_and_extras_are_kept(line: str) -> None:
    assert normalise(line) == line + "\n"
