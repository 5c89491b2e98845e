"""Build requests: tars with members of every kind and name, whole and broken, read here and by the real builder."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import msgspec
from hypothesis import strategies as st
from mutations import changed
from rounds import play
from running_platform import Platform

from stoker_builder.receive import receive
from stoker_sdk.errors import BadInput, StokerError

_NAMES = st.one_of(
    st.sampled_from(
        ["stoker.json", "handler/handler.py", "handler/a/b.txt", "template/template.yml", "handler", "handler/",
         "../out", "handler/../../out", "handler/./x", "handler//x", "x",
         "handler/" + "d/" * 300 + "x", "handler/a\nb",
         "handler/\udcff", "handler/\\..\\x", "handler/ü", "handler/a\0b", "./handler/x",
         "HANDLER/x", "handler/stoker.json"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map("handler/{}".format),
)  # fmt: skip
_LINKS = [tarfile.SYMTYPE, tarfile.LNKTYPE]
_ODD = [tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE, b"Z"]
_KINDS = st.sampled_from([tarfile.REGTYPE] * 8 + _LINKS + _ODD)
_SETTINGS = st.sampled_from(
    [b'{"name": "greet", "lang": "python3"}', b'{"name": "../x", "lang": "python3"}',
     b'{"name": "greet", "lang": "../x"}',
     b'{"name": "greet", "lang": "nope", "buildArgs": {"A": "b"}}', b"{}", b"[]", b"{" * 5000, b"\xff"]
)  # fmt: skip


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    buffer = io.BytesIO()
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]))
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
        if draw(st.integers(0, 9)):
            _add(tar, "stoker.json", tarfile.REGTYPE, draw(_SETTINGS))
        for _ in range(draw(st.integers(0, 5))):
            _add(tar, draw(_NAMES), draw(_KINDS), draw(st.binary(max_size=200)))
    data = buffer.getvalue()
    if draw(st.booleans()):
        data = draw(changed(data, (b"\0" * 512, b"x" * 512, b"7777777", b"\xff" * 8, b"../"), most=4))
    return gzip.compress(data, 1) if draw(st.integers(0, 4)) == 0 else data


def _add(tar: tarfile.TarFile, name: str, kind: bytes, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "../../out" if kind in _LINKS else ""
    member.size = len(content) if kind in (tarfile.REGTYPE, tarfile.CONTTYPE, b"Z") else 0
    try:
        tar.addfile(member, io.BytesIO(content))
    except (ValueError, UnicodeError):
        pass  # this format cannot hold such a name


def fuzz(platform: Platform) -> int:
    with tempfile.TemporaryDirectory(prefix="stoker-fuzz-") as outer:
        return play(tars(), lambda data: _receive_below(Path(outer), data), 150)


def _receive_below(outer: Path, data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=outer) as middle:
        folder = Path(middle) / "in"
        folder.mkdir()
        try:
            receive(io.BufferedReader(io.BytesIO(data)), folder)
        except BadInput as error:
            assert str(error).strip(), "an error without words"
        assert os.listdir(outer) == [Path(middle).name] and os.listdir(middle) == ["in"], "something lies outside"
        for path in folder.rglob("*"):
            assert stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR), f"{path} is no file"


def fuzz_builds(platform: Platform) -> int:
    def check(data: bytes) -> None:
        try:
            lines = list(platform.client.build(data))
        except BadInput:
            return
        except StokerError as error:
            raise AssertionError(f"{error.status}: {error}") from error
        last = lines[-1]
        assert last.image or (last.error and last.code != "internal"), msgspec.json.encode(lines)

    return play(tars(), check, 8)
