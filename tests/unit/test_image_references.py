"""Names of images, and which login is for which."""

from __future__ import annotations

import base64
import json

import pytest

from stoker_gateway.providers.images.credentials import Login, login_for, read_pull_secret
from stoker_gateway.providers.images.reference import Reference, parse_reference
from stoker_sdk.errors import BadInput

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "registry", "path", "tag", "digest"),
    [
        ("greet", "docker.io", "library/greet", "latest", ""),
        ("ours/greet:1", "docker.io", "ours/greet", "1", ""),
        ("index.docker.io/ours/greet", "docker.io", "ours/greet", "latest", ""),
        ("localhost/greet", "localhost", "greet", "latest", ""),
        ("localhost:5000/a/b:v1.2", "localhost:5000", "a/b", "v1.2", ""),
        ("ghcr.io/a/b_c/d.e:x", "ghcr.io", "a/b_c/d.e", "x", ""),
        ("[::1]:5000/greet:1", "[::1]:5000", "greet", "1", ""),
        (f"ghcr.io/a/b@{DIGEST}", "ghcr.io", "a/b", "", DIGEST),
        (f"ghcr.io/a/b:1@{DIGEST}", "ghcr.io", "a/b", "1", DIGEST),
    ],
)
def test_a_name_is_taken_apart(image: str, registry: str, path: str, tag: str, digest: str) -> None:
    assert parse_reference(image) == Reference(registry, path, tag, digest)


@pytest.mark.parametrize(
    "image",
    [
        "",
        ":1",
        "Greet",
        "a b",
        "a//b",
        "-a",
        "a@sha256:12",
        "a@md5:x",
        "a:",
        "ghcr.io/",
        "x.io:port/a",
        "a/../b",
        "a?b",
        "é",
    ],
)
def test_what_is_no_name_is_refused(image: str) -> None:
    with pytest.raises(BadInput, match="is not an image's name"):
        parse_reference(image)


@pytest.mark.parametrize(
    ("image", "loopback"),
    [
        ("localhost:5000/a", True),
        ("127.0.0.1:1/a", True),
        ("[::1]/a", True),
        ("localhost.evil.com/a", False),
        ("127.0.0.1.evil.com/a", False),
        ("a", False),
    ],
)
def test_only_loopback_addresses_are(image: str, loopback: bool) -> None:
    assert parse_reference(image).is_loopback is loopback


def secret(document: object) -> dict[str, str]:
    return {".dockerconfigjson": base64.b64encode(json.dumps(document).encode()).decode()}


def read(document: object) -> dict[str, Login]:
    return read_pull_secret("pull", "kubernetes.io/dockerconfigjson", secret(document))


def test_both_ways_of_writing_a_login_are_read() -> None:
    joined = base64.b64encode(b"me:pass:word").decode()
    entries = {"https://index.docker.io/v1/": {"auth": joined}, "ghcr.io": {"username": "u", "password": "p"}}
    found = read({"auths": entries})
    source = "secret 'pull'"
    assert found == {"docker.io": Login("me", "pass:word", source), "ghcr.io": Login("u", "p", source)}


@pytest.mark.parametrize(
    "document", [[], {}, {"auths": []}, {"auths": {"a": {"auth": "%%%"}}}, {"auths": {"a": 1}}, "x"]
)
def test_a_pull_secret_with_other_content_is_refused_without_showing_it(document: object) -> None:
    with pytest.raises(BadInput, match="secret 'pull'") as caught:
        read(document)
    assert caught.value.__cause__ is None


def test_a_login_shows_its_password_to_nobody() -> None:
    assert "word" not in repr(Login("me", "word", "pull"))


@pytest.mark.parametrize(
    ("image", "user"),
    [
        ("ghcr.io/a/b:1", "narrow"),
        ("ghcr.io/c:1", "wide"),
        ("ghcr.io/ab:1", "wide"),
        ("ghcr.io.evil.com/a:1", ""),
        ("b:1", ""),
    ],
)
def test_the_login_with_the_longest_place_is_taken(image: str, user: str) -> None:
    logins = [{"ghcr.io": Login("wide", "", "one")}, {"ghcr.io/a": Login("narrow", "", "two")}]
    found = login_for(parse_reference(image), logins)
    assert (found.user if found else "") == user
