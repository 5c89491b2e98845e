"""Stacks from several files and from web addresses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stoker_sdk.errors import BadInput, BadUsage, NotFound, TooLarge, Unavailable
from stoker_sdk.fetch import fetch
from stoker_sdk.stack import load_stacks

A = "provider: {name: openfaas}\nfunctions: {a: {lang: python3, handler: ./a, image: a}}\n"
B = "provider: {name: openfaas, gateway: 'https://b.example.org'}\nfunctions: {b: {lang: python3, handler: ./b}}\n"


class Site(BaseHTTPRequestHandler):
    """Pages by path; `/big` never ends, `/slow` never comes, `/loop` leads to itself."""

    def do_GET(self) -> None:
        pages = {"/stack.yml": A.encode(), "/latin": b"\xff\xfe", "/bomb": b"a" * (2 << 20)}
        moved = {"/loop": "/loop", "/moved": "/stack.yml", "/file": "file:///etc/passwd"}
        if self.path in moved:
            self.send_response(302)
            self.send_header("Location", moved[self.path])
            self.end_headers()
            return
        self.send_response(200 if self.path in pages or self.path == "/drip" else 404)
        self.end_headers()
        if self.path == "/drip":
            self.drip()
        self.wfile.write(pages.get(self.path, b"no"))

    def drip(self) -> None:
        try:
            while not self.server.stopped.wait(0.02):  # type: ignore[attr-defined]
                self.wfile.write(b"x")
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        return None


@contextmanager
def running_site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.stopped = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.stopped.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site() -> Iterator[str]:
    with running_site() as url:
        yield url


def test_several_files_are_one_stack_and_each_function_keeps_its_folder(tmp_path: Path) -> None:
    for name, text in (("one", A), ("two", B)):
        (tmp_path / name / name[0].replace("o", "a").replace("t", "b")).mkdir(parents=True)
        (tmp_path / name / "stack.yml").write_text(text)
    stack = load_stacks([str(tmp_path / "one/stack.yml"), str(tmp_path / "two/stack.yml")], {})
    assert [each.name for each in stack.functions] == ["a", "b"] and stack.gateway == "https://b.example.org"
    assert [stack.handler_folder(each) for each in stack.functions] == [tmp_path / "one/a", tmp_path / "two/b"]
    assert stack.part_of(stack.functions[1]).file == str(tmp_path / "two/stack.yml")


def test_a_function_that_two_files_have_is_refused_and_both_are_named(tmp_path: Path) -> None:
    for name in ("one.yml", "two.yml"):
        (tmp_path / name).write_text(A)
    with pytest.raises(BadUsage, match=r"function 'a' stands in .*one\.yml and in .*two\.yml"):
        load_stacks([str(tmp_path / "one.yml"), str(tmp_path / "two.yml")], {})


def test_two_gateways_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_text(A.replace("openfaas}", "openfaas, gateway: 'http://a.example.org'}"))
    (tmp_path / "two.yml").write_text(B)
    with pytest.raises(BadUsage, match="name different gateways"):
        load_stacks([str(tmp_path / "one.yml"), str(tmp_path / "two.yml")], {})


def test_a_stack_is_read_from_a_web_address_and_redirects_are_followed(site: str) -> None:
    for path in ("/stack.yml", "/moved"):
        (function,) = load_stacks([site + path], {}).functions
        assert function.name == "a"


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("/nothing", NotFound, "does not exist"),
        ("/latin", BadInput, "is not UTF-8"),
        ("/bomb", TooLarge, "larger than 1 MiB"),
        ("/loop", Unavailable, "cannot be fetched"),
        ("/file", Unavailable, "cannot be fetched"),
    ],
)
def test_what_an_address_cannot_give_is_said(site: str, path: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        load_stacks([site + path], {})


@pytest.mark.parametrize(
    "url", ["ftp://x/stack.yml", "file:///etc/passwd", "http://", "http://a b", "https://x:99999/"]
)
def test_only_web_addresses_are_fetched(url: str) -> None:
    with pytest.raises(BadInput, match="only http:// and https:// addresses can"):
        load_stacks([url], {})


def test_an_answer_that_drips_is_given_up_after_the_time_limit(site: str) -> None:
    with pytest.raises(Unavailable, match="did not come to its end in time"):
        fetch(f"{site}/drip", {}, 1 << 20, timeout=0.3)


def test_nobody_there_is_said_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable) as caught:
        fetch(f"http://me:hidden@127.0.0.1:{port}/x", {}, 1)
    assert "hidden" not in str(caught.value) and str(port) in str(caught.value)


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="larger than 1 MiB"):
        load_stacks(["/dev/zero"], {})
