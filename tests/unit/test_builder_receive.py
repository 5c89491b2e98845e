"""The request's tar: honest ones are unpacked, hostile ones refused with what is wrong."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from stoker_builder import receive as module
from stoker_builder.receive import receive
from stoker_sdk.archive import BuildSettings, pack
from stoker_sdk.errors import BadInput

SETTINGS = {"name": "greet", "lang": "python3"}


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode = len(content), kind, mode
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = "/etc/passwd"
    return info, content


def tar_of(members: Iterable[tuple[tarfile.TarInfo, bytes]], settings: object = SETTINGS) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info, content in [member("stoker.json", json.dumps(settings).encode()), *members]:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def receive_bytes(data: bytes, folder: Path) -> module.Request:
    return receive(io.BufferedReader(io.BytesIO(data)), folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_files_arrive_with_their_content_and_executable_bit(tmp_path: Path, compress: type[bytes]) -> None:
    data = tar_of(
        [
            member("handler", kind=tarfile.DIRTYPE),
            member("handler/handler.py", b"x = 1\n"),
            member("handler/./deep/run.sh", b"#!/bin/sh\n", mode=0o777),
        ]
    )
    request = receive_bytes(compress(data), tmp_path)
    assert (request.name, request.lang, request.template) == ("greet", "python3", None)
    assert (request.handler / "handler.py").read_bytes() == b"x = 1\n"
    assert (request.handler / "handler.py").stat().st_mode & 0o777 == 0o644
    assert (request.handler / "deep" / "run.sh").stat().st_mode & 0o777 == 0o755


def test_what_the_client_packs_is_understood(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "handler.py").write_text("x = 1\n")
    upload = tmp_path / "upload"
    upload.mkdir()
    with pack(BuildSettings("greet", "python3", {"A": "b"}), source, source) as file:
        request = receive_bytes(file.read(), upload)
    assert request.build_args == {"A": "b"}
    assert request.template and (request.template / "handler.py").is_file()


def test_caches_and_git_are_left_out(tmp_path: Path) -> None:
    names = ["handler/__pycache__/a.pyc", "handler/.git/config", "handler/b.pyc"]
    request = receive_bytes(tar_of(member(name) for name in names), tmp_path)
    assert list(request.handler.iterdir()) == []


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member("/handler/a.py")], "leads out of its folder"),
        ([member("handler/../../a.py")], "leads out of its folder"),
        ([member("handler\\..\\a.py")], "leads out of its folder"),
        ([member("handler/link", kind=tarfile.SYMTYPE)], "is a link or a special file"),
        ([member("handler/hard", kind=tarfile.LNKTYPE)], "is a link or a special file"),
        ([member("handler/device", kind=tarfile.CHRTYPE)], "is a link or a special file"),
        ([member("handler/block", kind=tarfile.BLKTYPE)], "is a link or a special file"),
        ([member("handler/pipe", kind=tarfile.FIFOTYPE)], "is a link or a special file"),
        ([member("handler/a.py"), member("handler/a.py")], "is twice in the build request"),
        ([member("handler/a.py"), member("handler/./a.py")], "is twice in the build request"),
        ([member("handler/a"), member("handler/a/b")], "is both a file and a folder"),
        ([member("handler/a/b"), member("handler/a")], "is both a file and a folder"),
        ([member("other/a.py")], "is not below handler/ or template/"),
        ([member("a.py")], "is not below handler/ or template/"),
        ([member("handler")], "must be a folder"),
        ([member("handler/a\nb.py")], "is no usable file name"),
        ([member("handler/" + "x" * 300)], "is no usable file name"),
        ([member("handler/" + "x/" * 400 + "y")], "is no usable file name"),
    ],
)
def test_a_hostile_member_is_refused_by_name(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], message: str
) -> None:
    upload = tmp_path / "upload"
    upload.mkdir()
    with pytest.raises(BadInput, match=message):
        receive_bytes(tar_of(members), upload)
    assert list(tmp_path.iterdir()) == [upload]


@pytest.mark.slow
def test_too_many_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has more than 20000 files"):
        receive_bytes(tar_of(member(f"handler/{number}") for number in range(20_001)), tmp_path)


def test_too_many_folders_are_refused_as_well(tmp_path: Path) -> None:
    names = (f"handler/{number}/" + "x/" * 200 + "y" for number in range(200))
    with pytest.raises(BadInput, match="has more than 20000 files"):
        receive_bytes(tar_of(member(name) for name in names), tmp_path)


def test_a_tar_that_unpacks_to_too_much_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    info, _ = member("handler/big")
    info.size = 600 << 20
    data = tar_of([])[:1024] + info.tobuf() + bytes(4096)
    with pytest.raises(BadInput, match="larger than 512 MiB unpacked"):
        receive_bytes(data, tmp_path)
    assert not (tmp_path / "handler").exists()


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("kept", [0, 1, 700, 1024, 1536, 2048, 2600])
def test_an_upload_that_breaks_off_anywhere_is_refused(tmp_path: Path, kept: int, compress: type[bytes]) -> None:
    whole = tar_of([member("handler/a.py", b"x" * 600)])
    data = compress(whole[:kept]) if compress is bytes else gzip.compress(whole, 0)[:kept]
    with pytest.raises(BadInput, match="build request"):
        receive_bytes(data, tmp_path)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x1f\x8bxxxxxxxxxxxx", b"\0" * 2048, b"{}" * 1000])
def test_what_is_no_tar_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadInput, match="build request"):
        receive_bytes(data, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "cannot be read"),
        ({"lang": "python3"}, "cannot be read"),
        ({"name": "greet", "lang": 3}, "cannot be read"),
        ({"name": "../x", "lang": "python3"}, "function name '../x' is not allowed"),
        ({**SETTINGS, "buildArgs": {"a b": ""}}, "environment variable 'a b'"),
        ({**SETTINGS, "buildArgs": {"A": "\0"}}, "holds a NUL character"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, settings: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        receive_bytes(tar_of([], settings), tmp_path)


def test_settings_that_do_not_come_first_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(member("handler/a.py")[0])
    with pytest.raises(BadInput, match=r"does not begin with stoker\.json"):
        receive_bytes(file.getvalue(), tmp_path)
