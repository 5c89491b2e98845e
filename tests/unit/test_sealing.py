"""Sealed secrets: only the platform opens them, and only for what they were sealed for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_builder.build_secrets import check_clean, environment_of, forms_of
from stoker_builder.errors import FailedInstall
from stoker_sdk.errors import BadInput
from stoker_sdk.sealing import PREFIX, new_private_key, public_key_of, purpose_of, seal, unseal

KEY = new_private_key()
PURPOSE = purpose_of("Me", "Shop", "TOKEN")


@given(st.binary(min_size=1, max_size=300))
def test_what_was_sealed_is_opened(value: bytes) -> None:
    text = seal(public_key_of(KEY), value, PURPOSE)
    assert unseal(KEY, text + "\n", PURPOSE) == value
    assert text != seal(public_key_of(KEY), value, PURPOSE)


@given(st.integers(0, 200), st.integers(1, 255))
def test_one_changed_byte_is_noticed(at: int, change: int) -> None:
    text = bytearray(seal(public_key_of(KEY), b"a secret", PURPOSE).encode())
    at = len(PREFIX) + at % (len(text) - len(PREFIX))
    text[at] ^= change
    with pytest.raises(BadInput):
        if unseal(KEY, text.decode("latin-1"), PURPOSE) == b"a secret":
            raise BadInput("another spelling of the same base64")


@pytest.mark.parametrize("purpose", ["me/shop OTHER", "me/shop2 TOKEN", "you/shop TOKEN", ""])
def test_it_opens_for_nothing_else(purpose: str) -> None:
    with pytest.raises(BadInput, match="was not sealed for"):
        unseal(KEY, seal(public_key_of(KEY), b"a secret", PURPOSE), purpose)


def test_another_platform_cannot_open_it() -> None:
    with pytest.raises(BadInput):
        unseal(new_private_key(), seal(public_key_of(KEY), b"a secret", PURPOSE), PURPOSE)


@pytest.mark.parametrize("text", ["", "x", PREFIX, PREFIX + "!!", PREFIX + "AAAA", PREFIX + "A" * 200_000])
def test_what_is_no_sealed_text(text: str) -> None:
    with pytest.raises(BadInput):
        unseal(KEY, text, PURPOSE)


def test_packages_by_a_secret_have_an_environment_of_their_own() -> None:
    plain = "e" * 64
    assert environment_of(plain, {}) == plain
    assert environment_of("", {"A_TOKEN": "secret1"}) == ""
    named = [
        environment_of(plain, {name: value}) for name in ("A_TOKEN", "B_TOKEN") for value in ("secret1", "secret2")
    ]
    assert len({*named, plain}) == 5


def test_every_form_of_a_secret_is_hidden() -> None:
    assert {"p@ss/word", "p%40ss%2Fword", "p%40ss/word", "cEBzcy93b3Jk"} <= set(forms_of({"T": "p@ss/word"}))


def test_where_a_package_came_from_loses_the_secret_and_a_package_must_not_have_it(tmp_path: Path) -> None:
    note = tmp_path / "x-1.dist-info" / "direct_url.json"
    note.parent.mkdir()
    note.write_text('{"url": "https://u:s3cr3t-token@example.org/x"}')
    check_clean(tmp_path, {"T": "s3cr3t-token"})
    assert note.read_text() == '{"url": "https://u:(secret)@example.org/x"}'
    (tmp_path / "x.py").write_text("TOKEN = 's3cr3t-token'")
    with pytest.raises(FailedInstall, match=r"x\.py of a package holds a build secret"):
        check_clean(tmp_path, {"T": "s3cr3t-token"})
