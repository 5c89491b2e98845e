"""Mode `static`, against a real process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from watchdog_process import WatchdogProcess, watchdog

pytestmark = pytest.mark.slow


@pytest.fixture
def one(tmp_path: Path) -> Iterator[WatchdogProcess]:
    public = tmp_path / "public"
    (public / "docs").mkdir(parents=True)
    (public / "index.html").write_text("<h1>hello</h1>")
    (public / "docs" / "index.html").write_text("docs")
    (public / "style.css").write_text("body {}")
    (public / "big.bin").write_bytes(os.urandom(5_000_000))
    (tmp_path / "secret").write_text("secret")
    (public / "out").symlink_to(tmp_path / "secret")
    os.mkfifo(public / "fifo")
    with watchdog(tmp_path, "static", static_path=str(public)) as started:
        yield started


def test_files_have_their_type_and_folders_their_index(one: WatchdogProcess) -> None:
    root, css = one.call("/", method="GET"), one.call("/style.css?v=1", method="GET")
    assert (root.body, root.headers["content-type"]) == (b"<h1>hello</h1>", "text/html; charset=utf-8")
    assert css.headers["content-type"] == "text/css; charset=utf-8"
    assert one.call("/docs/", method="GET").body == b"docs"
    moved = one.call("/docs", method="GET")
    assert (moved.status, moved.headers["location"]) == (301, "./docs/")


def test_head_has_the_size_and_no_body(one: WatchdogProcess) -> None:
    answer = one.call("/big.bin", method="HEAD")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "5000000", b"")


def test_a_big_file_comes_whole_and_in_parts(one: WatchdogProcess) -> None:
    content = (one.folder / "public" / "big.bin").read_bytes()
    assert one.call("/big.bin", method="GET").body == content
    part = one.call("/big.bin", method="GET", headers={"Range": "bytes=1000-1999"})
    assert (part.status, part.body) == (206, content[1000:2000])
    assert part.headers["content-range"] == "bytes 1000-1999/5000000"
    beyond = one.call("/big.bin", method="GET", headers={"Range": "bytes=5000000-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */5000000")


def test_what_the_client_has_already_is_not_sent_again(one: WatchdogProcess) -> None:
    first = one.call("/style.css", method="GET").headers
    for name, value in (("If-None-Match", first["etag"]), ("If-Modified-Since", first["last-modified"])):
        answer = one.call("/style.css", method="GET", headers={name: value})
        assert (answer.status, answer.body) == (304, b"")
    assert one.call("/style.css", method="GET", headers={"If-None-Match": '"other"'}).status == 200


@pytest.mark.parametrize(
    "path", ["/none", "/../secret", "/%2e%2e/secret", "/out", "/fifo", "/docs/%00", "/docs/../../secret"]
)
def test_nothing_else_is_to_be_had(one: WatchdogProcess, path: str) -> None:
    answer = one.call(path, method="GET")
    assert (answer.status, answer.headers["x-stoker-error"]) == (404, "client; no-such-file")
    assert b"secret" not in answer.body


def test_other_methods_are_refused(one: WatchdogProcess) -> None:
    answer = one.call("/", b"x", method="POST")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with watchdog(tmp_path, "static", ready=False, static_path=str(tmp_path / "none")) as none:
        assert none.process.wait(10) == 1
        assert "static_path is" in none.log
