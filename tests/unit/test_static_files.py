from pathlib import Path

import pytest

from stoker_watchdog.static_runner import byte_range, locate


@pytest.fixture
def root(tmp_path: Path) -> bytes:
    folder = tmp_path / "public"
    (folder / "docs").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "docs" / "index.html").write_text("docs")
    (folder / "a b.txt").write_text("space")
    (tmp_path / "secret").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "away").symlink_to(tmp_path)
    (folder / "in").symlink_to(folder / "a b.txt")
    (folder / "loop").symlink_to(folder / "loop")
    (tmp_path / "public-not").mkdir()
    (tmp_path / "public-not" / "x").write_text("neighbour")
    return bytes(folder)


def test_files_folders_and_links_inside_are_found(root: bytes) -> None:
    assert locate(root, b"/a%20b.txt") == root + b"/a b.txt"
    assert locate(root, b"/in") == root + b"/a b.txt"
    assert locate(root, b"/docs/") == root + b"/docs/index.html"
    assert locate(root, b"/docs") == root + b"/docs"


@pytest.mark.parametrize(
    "path",
    [
        b"/missing",
        b"/empty/",
        b"/../secret",
        b"/docs/../../secret",
        b"/%2e%2e/secret",
        b"/..%2fsecret",
        b"/out",
        b"/away/secret",
        b"/loop",
        b"/a%00b",
        b"/../public-not/x",
        b"/a%20b.txt/",
        b"/" + b"x" * 5000,
        b"//etc/passwd",
    ],
)
def test_what_is_not_there_or_leads_out_is_not_found(root: bytes, path: bytes) -> None:
    assert locate(root, path) is None


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (b"bytes=0-0", (0, 1)),
        (b"bytes=2-", (2, 10)),
        (b"bytes=-3", (7, 10)),
        (b"bytes=-30", (0, 10)),
        (b"bytes=5-100", (5, 10)),
        (b"bytes=10-", (0, -1)),
        (b"bytes=-0", (0, -1)),
        (b"bytes=5-2", (0, 10)),
        (b"bytes=0-1,3-4", (0, 10)),
        (b"lines=1-2", (0, 10)),
        (b"bytes=a-b", (0, 10)),
        (b"bytes=" + b"9" * 100 + b"-", (0, 10)),
    ],
)
def test_a_range_is_taken_or_ignored_as_the_rfc_says(wanted: bytes, expected: tuple[int, int]) -> None:
    assert byte_range(wanted, 10) == expected
