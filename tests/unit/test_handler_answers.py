"""What a handler may return, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from stoker_watchdog.event import Body, Event
from stoker_watchdog.handler import HandlerError, answer_from, chunk_bytes, load_handler

TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
JSON = b"Content-Type: application/json\r\n"
BYTES = b"Content-Type: application/octet-stream\r\n"


@pytest.mark.parametrize(
    ("result", "status", "block", "body"),
    [
        ("héllo", 200, TEXT, "héllo".encode()),
        (b"\x00\xff", 200, BYTES, b"\x00\xff"),
        (None, 200, TEXT, b""),
        ({"a": 1}, 200, JSON, b'{"a": 1}'),
        ({}, 200, JSON, b"{}"),
        ([1, "x"], 200, JSON, b'[1, "x"]'),
        ({"statusCode": 201}, 201, TEXT, b""),
        ({"body": {"a": 1}}, 200, JSON, b'{"a": 1}'),
        ({"statusCode": 404, "body": "no"}, 404, TEXT, b"no"),
        ({"body": b"x", "headers": {"content-type": "image/png"}}, 200, b"content-type: image/png\r\n", b"x"),
        ({"body": "x", "headers": {"X-A": ["1", 2]}}, 200, b"X-A: 1\r\nX-A: 2\r\n" + TEXT, b"x"),
        ({"body": "x", "headers": {"Content-Length": "9", "X-A": "1"}}, 200, b"X-A: 1\r\n" + TEXT, b"x"),
    ],
)
def test_what_is_returned_becomes_an_answer(result: Any, status: int, block: bytes, body: bytes) -> None:
    answer = answer_from(result)
    assert (answer.status, answer.block, answer.body) == (status, block, body)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (object(), "returned object"),
        ({"statusCode": "200"}, "statusCode '200'"),
        ({"statusCode": 99}, "statusCode 99"),
        ({"statusCode": True}, "statusCode True"),
        ({"body": "x", "headers": {"X\r\nEvil": "1"}}, "header"),
        ({"body": "x", "headers": {"X-A": "1\r\nEvil: 2"}}, "header"),
        ({"body": "x", "headers": "X-A: 1"}, "headers of type str"),
        ({"body": {"a": object()}}, "not JSON"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_a_reason(result: Any, said: str) -> None:
    with pytest.raises(HandlerError, match="returned") as caught:
        answer_from(result)
    assert said in str(caught.value)


def test_generators_are_streams_of_either_kind() -> None:
    def plain() -> Iterator[str]:
        yield "x"

    async def asynchronous() -> AsyncIterator[str]:
        yield "x"

    for pieces in (plain(), asynchronous()):
        assert answer_from(pieces).body is pieces
        assert answer_from({"statusCode": 206, "body": pieces}).status == 206


def test_pieces_are_text_or_bytes() -> None:
    assert [chunk_bytes(piece) for piece in ("é", b"x", bytearray(b"y"))] == ["é".encode(), b"x", b"y"]
    with pytest.raises(HandlerError, match="yielded int"):
        chunk_bytes(1)


@pytest.mark.parametrize(
    ("source", "takes_event", "is_async"),
    [
        ("def handle(req): ...", False, False),
        ("def handle(event, context): ...", True, False),
        ("def handle(event, context, extra=1): ...", True, False),
        ("def handle(*args): ...", True, False),
        ("async def handle(req): ...", False, True),
        ("async def handle(event, context):\n    yield 1", True, True),
    ],
)
def test_the_shape_of_a_handler_is_read_from_its_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, takes_event: bool, is_async: bool
) -> None:
    name = f"shape_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    handler = load_handler(name)
    assert (handler.takes_event, handler.is_async) == (takes_event, is_async)


@pytest.mark.parametrize("source", ["", "handle = 3", "def handle(): ...", "def handle(a, b, c): ..."])
def test_a_module_without_a_usable_handler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    name = f"unusable_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(HandlerError, match="handle"):
        load_handler(name)


def test_an_event_gives_its_request_in_every_form() -> None:
    body = Body()
    body.add(b"caf\xc3")
    body.add(b"\xa9")
    fields = [(b"X-One", b"1"), (b"x-one", b"2"), (b"Accept", b"*/*")]
    event = Event(b"POST", b"/a%2Fb?x=1&x=2&y=&z=%20", fields, body)
    assert (event.method, event.path, event.raw_query) == ("POST", "/a%2Fb", "x=1&x=2&y=&z=%20")
    assert (event.text, event.body, event.file.read()) == ("café", "café".encode(), "café".encode())
    assert (event.query, event.query.getlist("x")) == ({"x": "1", "y": "", "z": " "}, ["1", "2"])
    assert (event.headers["X-ONE"], event.headers.getlist("x-One"), len(event.headers)) == ("1", ["1", "2"], 2)


def test_a_large_body_waits_in_a_file_and_is_the_same_there() -> None:
    body = Body()
    piece = bytes(range(256)) * 1024
    for _ in range(8):
        body.add(piece)
    assert body.size == len(piece) * 8
    assert body.whole() == piece * 8
    assert body.file().read(256) == piece[:256]
    body.close()
