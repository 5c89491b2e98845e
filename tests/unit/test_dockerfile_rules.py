"""What a repository's Dockerfile may do, and what it looks like when it is built."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from stoker_builder.images.builder import Order
from stoker_builder.images.context import prepare_context
from stoker_builder.images.dockerfile import instructions
from stoker_builder.images.rules import checked
from stoker_builder.request import BuildRequest
from stoker_builder.templates import list_templates
from stoker_sdk.archive import BuildSettings
from stoker_sdk.errors import BadInput

PREFIX = "registry.example.org:5000/pushed"
OURS = [
    *(file for template in list_templates() for file in template.path.rglob("Dockerfile")),
    *Path(__file__).parents[2].glob("stack-examples/**/Dockerfile"),
]
HEAD = "FROM debian:12 AS base\n"
SPACES = "\u0085\u00a0\u1680\u2003\u2028\u3000"


def check(text: str, scope: str = "me", **arguments: str) -> str:
    return checked(text, arguments, PREFIX, scope)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# syntax=docker.io/evil/frontend\n" + HEAD, "syntax=docker.io/evil/frontend"),
        ("#SYNTAX = evil\n" + HEAD, "is not allowed in a push"),
        (HEAD + "  # Syntax=evil\n", "is not allowed in a push"),
        ("# escape=`\n" + HEAD, "is not allowed in a push"),
        ("\ufeff# syntax=evil\n" + HEAD, "control characters"),
        (HEAD + "RUN a\x0bb\n", "control characters"),
        (HEAD + "RUN a\rRUN --security=insecure b\n", "control characters"),
        ("# a\r" + HEAD, "control characters"),
        (HEAD + "RUN a\r\r\n", "control characters"),
        (HEAD + "RUN a\udce9b\n", "not UTF-8"),
        (HEAD + "RUN --security=insecure id\n", "RUN --security=insecure is not allowed"),
        (HEAD + "RUN --network=host id\n", "RUN --network=host is not allowed"),
        (HEAD + "run\t--network=host id\n", "--network=host is not allowed"),
        (HEAD + "RUN \\\n # words\n\n --network=host id\n", "--network=host is not allowed"),
        (HEAD + "RUN --mount=type=ssh id\n", "type=ssh is not allowed"),
        (HEAD + "RUN --mount=type=cache,target=$HOME/x id\n", "is not allowed"),
        (HEAD + 'RUN --mount=type=cache,"target=/x" id\n', "is not allowed"),
        (HEAD + "RUN --device=all id\n", "--device=all is not allowed"),
        (HEAD + "RUN --network=host", "--network=host is not allowed"),
        (HEAD + "RUN --mount=target=/x\u00c5--security=insecure id\n", "is not allowed"),
        (HEAD + "RUN --mount=target=/x\u00e0 id\n", "is not allowed"),
        (HEAD + "RUN --mount=target=/x--network=host id\n", "is not allowed"),
        (HEAD + f"RUN --mount=from={PREFIX}/other,from=base,target=/x id\n", "an image of this platform's owners"),
        (
            HEAD + f"RUN --mount=from={PREFIX}/other,target=/x --mount=target=/y,from=base id\n",
            "of this platform's owners",
        ),
        (HEAD + f"RUN --mount=target=/x,FROM={PREFIX}/other id\n", "an image of this platform's owners"),
        (HEAD + "RUN a \\\\\nFROM x\n", "two backslashes"),
        (HEAD + "RUN cat <<E\nFROM x\nE\n", "here-document"),
        (HEAD + "COPY <<E /x\nE\n", "here-document"),
        (HEAD + "ADD http://169.254.169.254/ /x\n", "ADD of an address"),
        (HEAD + "ADD git@example.org:a/b.git /x\n", "ADD of an address"),
        (HEAD + "ARG U=x\nADD $U /x\n", "ADD of an address"),
        (HEAD + 'ADD ["http:\\/\\/127.0.0.1:8080/x", "/x"]\n', "ADD of an address"),
        (HEAD + 'ADD ["\\u0068ttp:x", "/x"]\n', "ADD of an address"),
        (HEAD + "ADD http:/\\/127.0.0.1:8080/x /x\n", "ADD of an address"),
        (HEAD + "ADD 'http:'//127.0.0.1/x /x\n", "ADD of an address"),
        (HEAD + "ADD x@host:repo /x\n", "ADD of an address"),
        (HEAD + "ADD [a-b] /x\n", "ADD of an address"),
        (HEAD + "ADD \\\n", "ADD of an address"),
        (HEAD + "ONBUILD RUN id\n", "'ONBUILD' is not allowed"),
        (HEAD + "INCLUDE other\n", "'INCLUDE' is not allowed"),
        (f"FROM {PREFIX}/other--repo--them:1\n", "an image of this platform's owners"),
        ("FROM 127.0.0.1:5000/pushed/other\n", "an image of this platform's owners"),
        ("FROM pushed/other\n", "an image of this platform's owners"),
        (f"ARG BASE={PREFIX}/other\nFROM ${{BASE}}\n", "an image of this platform's owners"),
        ("ARG A=pushed\nFROM r/$A/other\n", "an image of this platform's owners"),
        (HEAD + f"COPY --from={PREFIX}/other / /\n", "an image of this platform's owners"),
        (HEAD + f"RUN --mount=type=bind,from={PREFIX}/other,target=/x id\n", "an image of this platform's owners"),
        ("FROM ${BASE:-debian}\n", "write the image out"),
        ("FROM $UNKNOWN\n", "write the image out"),
        ("ARG A=$B\nFROM $A\n", "write the image out"),
        ("ARG A=x\nARG A=y\nFROM $A\n", "the only one of its name"),
        ("ARG A=x B=y\nFROM $A\n", "one NAME=VALUE"),
        ("ARG TARGETOS=x\nFROM $TARGETOS/y\n", "one NAME=VALUE"),
        (HEAD + "COPY --from=$X / /\n", "is not allowed"),
        *((HEAD + f"RUN a \\{space}\nRUN --network=host b\n", "white space") for space in SPACES),
        (HEAD + "RUN a\u00a0b\n", "white space"),
        (HEAD + "RUN a \\ \\\n", "ends in a backslash"),
        ("FROM debian:12 AS b\u00e4se\n", "a stage's name"),
        ("FROM debian:12 AS 0\n", "a stage's name"),
        ("FROM debian:12 AS a/b\n", "a stage's name"),
        (HEAD + "#" * 65536, "larger than 64 KiB"),
        (HEAD + "# " + "\u00e9" * 32768, "larger than 64 KiB"),
        (HEAD + f"COPY --from {PREFIX}/other:1 /a /b\n", "COPY --from is not allowed"),
        (HEAD + "RUN --mount type=ssh id\n", "RUN --mount is not allowed"),
        ("FROM --platform=$X debian:12\n", "is not allowed"),
        ("FROM --platform=${TARGETPLATFORM:-$X} debian:12\n", "is not allowed"),
        ("FROM --platform=${TARGETPLATFORM debian:12\n", "is not allowed"),
        ("FROM --platform=${TARGETPLATFORM:+x} debian:12\n", "is not allowed"),
        (HEAD + "COPY --chown=$TARGETPLATFORM a b\n", "is not allowed"),
        ("", "there is no Dockerfile"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        check(text)


def test_an_argument_of_the_stack_counts_as_the_dockerfile_s_own() -> None:
    text = "ARG BASE=debian:12\nFROM ${BASE}\n"
    assert "FROM ${BASE}" in check(text)
    with pytest.raises(BadInput, match="an image of this platform's owners"):
        check(text, BASE=f"{PREFIX}/other")


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.parent.name)
def test_our_own_templates_are_allowed_and_keep_their_words(file: Path) -> None:
    text = file.read_text()
    written = [line for line in instructions(check(text)) if not line.startswith("ARG STOKER_SCOPE=")]
    before = [re.sub(r"\s+", " ", line) for line in instructions(text)]
    after = [re.sub(r"\s+", " ", re.sub(r",id=[0-9a-f]{20}-/root/[.a-z/]+", "", line)) for line in written]
    assert after == before


@pytest.mark.parametrize(
    "platform",
    [
        "linux/arm64",
        "$BUILDPLATFORM",
        "${BUILDPLATFORM}",
        "${TARGETPLATFORM:-linux/amd64}",
        "${TARGETPLATFORM:-linux/arm/v7}",
    ],
)
def test_a_base_may_be_of_a_platform(platform: str) -> None:
    """The last two are how OpenFaaS's own templates begin."""
    line = f"FROM --platform={platform} debian:12 AS base"
    assert check(f"{line}\nCOPY --link a b\n").splitlines()[1:] == [line, "COPY --link a b"]


def test_a_large_dockerfile_is_read_at_once() -> None:
    lines = HEAD + "RUN a" + "\\x\\\n" * 16_000 + "b\n"
    began = time.process_time()
    check(lines)
    assert time.process_time() - began < 1


def test_files_of_the_context_may_be_added() -> None:
    line = "ADD --chown=app:app site-1.0.tar.gz \t*.txt\tsub/ /srv/x_y/"
    assert check(f"{HEAD}{line}\n").splitlines()[-1] == line


def test_lines_may_end_as_windows_ends_them() -> None:
    assert check((HEAD + "RUN a \\\n b\n").replace("\n", "\r\n")) == check(HEAD + "RUN a \\\n b\n")


def test_what_was_read_is_what_is_built_whatever_its_bytes_are(tmp_path: Path) -> None:
    """Also a text that equals its own checked form once it is decoded."""
    (tmp_path / "greet").mkdir()
    source = tmp_path / "greet" / "Dockerfile"

    def built(data: bytes, **rules: Any) -> bytes:
        source.write_bytes(data)
        source.chmod(0o444)
        request = BuildRequest(BuildSettings("greet", "dockerfile"), tmp_path / "greet", None, {}, None)
        context, text = prepare_context(Order(request, context=tmp_path / "context", **rules))
        source.unlink()
        assert (context / "Dockerfile").read_bytes() == text.encode(errors="surrogateescape")
        return (context / "Dockerfile").read_bytes()

    checked_form = check(HEAD + "RUN a\n").encode()
    assert built(checked_form, dockerfile=check) == checked_form
    for data in (checked_form.replace(b"\nRUN", b"\rRUN"), checked_form.replace(b"RUN a", b"RUN \xe9")):
        with pytest.raises(BadInput):
            built(data, dockerfile=check)
        source.unlink()
        assert built(data) == data, "what is built by hand is built as it is"


def test_nothing_before_the_first_line_is_a_directive() -> None:
    assert check(HEAD).splitlines()[0].startswith("# Checked")


def test_cache_folders_and_steps_with_secrets_are_of_one_owner() -> None:
    text = HEAD + "RUN --mount=type=cache,target=/c,id=mine --mount=type=secret,id=token make\nRUN make\n"
    mine, theirs = check(text, scope="me").splitlines(), check(text, scope="them").splitlines()
    assert mine[2].startswith("ARG STOKER_SCOPE=") and mine[2] != theirs[2]
    scope = mine[2].partition("=")[2]
    assert mine[3] == f"RUN --mount=type=cache,target=/c,id={scope}-mine --mount=type=secret,id=token make"
    assert mine[4] == theirs[4] == "RUN make"
    assert check(text, scope="me").splitlines() == mine


def test_continued_lines_are_put_together_as_buildkit_does() -> None:
    assert list(instructions("RUN a\\\n  # no\n\n  b\\\nc \\  \n d\r\nCMD x\n")) == ["RUN a  bc  d", "CMD x"]
