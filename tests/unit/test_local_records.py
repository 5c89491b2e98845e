"""What is on disk of a function: whole or not at all, and what cannot be read does no harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker_gateway.providers.local.records import Record, Records
from stoker_sdk.function import FunctionSpec
from stoker_sdk.names import function_key


def records(folder: Path) -> Records:
    return Records(folder / "functions", folder / "set-aside")


def record(name: str = "greet") -> Record:
    spec = FunctionSpec(name, image="stoker.local/greet@sha256:" + "0" * 64, labels={"a": "b"})
    created = "2026-01-31T12:00:00Z"
    return Record(spec, revision=3, created_at=created, replicas=2, serving=2, failure="no", output=["x"])


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    records(tmp_path).save(record())
    assert list(records(tmp_path).load()) == [record()]


def test_a_deleted_record_is_gone_and_deleting_it_again_is_no_error(tmp_path: Path) -> None:
    store = records(tmp_path)
    store.save(record())
    for _ in range(2):
        store.delete(function_key("greet"))
    assert list(store.load()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"spec": {"service": "greet"}}', b'{"spec": {"service": "other", "image": "x"}}', b"\xff\xfe"],
)
def test_what_cannot_be_read_is_set_aside_and_the_rest_is_loaded(tmp_path: Path, content: bytes) -> None:
    store = records(tmp_path)
    store.save(record("fine"))
    broken = tmp_path / "functions" / "openfaas-fn" / "greet.json"
    broken.write_bytes(content)
    assert [one.spec.service for one in store.load()] == ["fine"]
    assert not broken.exists()
    aside = list((tmp_path / "set-aside").iterdir())
    assert [path.read_bytes() for path in aside] == [content]


def test_a_record_whose_function_has_another_name_than_its_file_is_set_aside(tmp_path: Path) -> None:
    store = records(tmp_path)
    store.save(record())
    path = tmp_path / "functions" / "openfaas-fn" / "greet.json"
    path.rename(path.with_name("other.json"))
    assert list(store.load()) == []
