"""What buildctl is asked, and what it says: its documented command line, rawjson progress and metadata."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from stoker_builder.errors import FailedTests
from stoker_builder.images.buildctl_log import RawLog
from stoker_builder.images.builder import Order
from stoker_builder.images.buildkit import Daemon, cache_flags, digest_in, output_flags, solve_flags
from stoker_builder.request import BuildRequest
from stoker_sdk.archive import BuildSettings
from stoker_sdk.errors import BadInput, StokerError

DIGEST = "sha256:" + "d" * 64
TIME = "2026-01-02T03:04:05.678901234Z"


def order(**changes: object) -> Order:
    settings = BuildSettings("greet", "python3", {"B": "2, 3"})
    return Order(BuildRequest(settings, Path("greet"), None, {}, None), **changes)  # type: ignore[arg-type]


def test_the_command_line_says_all_of_an_order(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    wanted = order(
        image="r.example.org/me/greet:1",
        secrets={"token": token},
        labels={"a": "b"},
        platform="linux/arm64",
        cache="r.example.org/me/greet:cache",
        no_cache=True,
    )
    assert solve_flags(wanted, {"http_proxy": "http://p:1", "HOME": "/root"}) == [
        *("build", "--progress=rawjson", "--frontend=dockerfile.v0", "--local=context=.", "--local=dockerfile=."),
        *("--opt=platform=linux/arm64", "--opt=label:a=b", "--opt=build-arg:ADDITIONAL_PACKAGE="),
        *("--opt=build-arg:B=2, 3", "--opt=build-arg:http_proxy=http://p:1"),
        *("--opt=build-arg:BUILDKIT_SYNTAX=dockerfile.v0", "--no-cache"),
        *("--secret", f"id=token,src={token}"),
    ]
    assert cache_flags(wanted.cache, plain=False) == [
        "--export-cache=type=registry,ref=r.example.org/me/greet:cache,mode=max,ignore-error=true",
        "--import-cache=type=registry,ref=r.example.org/me/greet:cache",
    ]
    assert all(flag.endswith(",registry.insecure=true") for flag in cache_flags(wanted.cache, plain=True))
    assert output_flags(wanted, plain=False) == ["--output=type=image,name=r.example.org/me/greet:1,push=true"]
    assert output_flags(wanted, plain=True)[0].endswith(",push=true,registry.insecure=true")


def test_nobody_but_us_says_which_front_end_reads_a_dockerfile() -> None:
    settings = BuildSettings("greet", "python3", {"BUILDKIT_SYNTAX": "evil"})
    flags = solve_flags(Order(BuildRequest(settings, Path(), None, {}, None)), {})
    assert [flag for flag in flags if "SYNTAX" in flag] == ["--opt=build-arg:BUILDKIT_SYNTAX=dockerfile.v0"]


def test_where_a_buildkitd_is(tmp_path: Path) -> None:
    assert Daemon("unix:///run/b.sock").flags == ["--addr=unix:///run/b.sock"]
    for name in ("ca.pem", "cert.pem", "key.pem"):
        with pytest.raises(BadInput, match=f"has no {name}"):
            Daemon("tcp://b:1234", str(tmp_path)).check()
        (tmp_path / name).write_text("x")
    secure = Daemon("tcp://b:1234", str(tmp_path))
    secure.check()
    assert secure.flags == [
        "--addr=tcp://b:1234",
        *(f"--{flag}={tmp_path}/{name}.pem" for flag, name in (("tlscacert", "ca"), ("tlscert", "cert"))),
        f"--tlskey={tmp_path}/key.pem",
    ]


@pytest.mark.parametrize("address", ["", "b:1234", "http://b:1234", "tcp://b", "docker-container://x", "--debug"])
def test_another_address_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="write unix://PATH or tcp://HOST:PORT"):
        Daemon(address).check()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("localhost:5000/a/b:1", True),
        ("127.0.0.1:5000/a", True),
        ("plain.example.org:80/a", True),
        ("plain.example.org/a", False),
        ("localhost.example.org/a", False),
        ("127.example.org:5000/a", False),
    ],
)
def test_only_named_registries_and_those_on_loopback_are_spoken_to_without_tls(image: str, expected: bool) -> None:
    assert Daemon("unix:///b", plain_registries=("plain.example.org:80",)).is_plain(image) == expected


def test_the_digest_is_the_registry_s(tmp_path: Path) -> None:
    assert digest_in(json.dumps({"containerimage.digest": DIGEST, "containerimage.config.digest": "x"})) == DIGEST
    for text in ("", "[]", "{}", '{"containerimage.digest": 1}', '{"containerimage.digest": "latest"}'):
        with pytest.raises(StokerError, match="named no digest"):
            digest_in(text)


def status(**parts: object) -> str:
    return json.dumps(parts)


def vertex(digest: str, name: str, **more: object) -> dict[str, object]:
    return {"digest": digest, "name": name, "inputs": None, **more}


def printed(vertex: str, data: bytes) -> dict[str, object]:
    return {"vertex": vertex, "stream": 1, "data": base64.b64encode(data).decode(), "timestamp": TIME}


def shown(log: RawLog, *lines: str) -> list[str]:
    return [text for line in lines for text in log.lines(line)]


def test_what_it_prints_are_the_words_of_docker_s_builds() -> None:
    log = RawLog()
    euro = "5 \N{EURO SIGN}\n".encode()
    assert shown(
        log,
        status(vertexes=[vertex("1", "[internal] load build definition from Dockerfile", started=TIME)]),
        status(vertexes=[vertex("2", "[base 1/2] FROM python"), vertex("3", "[test 2/3] RUN pytest")]),
        status(vertexes=[vertex("2", "[base 1/2] FROM python", started=TIME, completed=TIME, cached=True)]),
        status(vertexes=[vertex("3", "[test 2/3] RUN pytest", started=TIME)], statuses=[{"id": "x", "vertex": "3"}]),
        status(logs=[printed("3", b"one\ntw")]),
        status(logs=[printed("3", b"o\r\n" + euro[:4]), printed("3", euro[4:] + b"the end")]),
        status(vertexes=[vertex("3", "[test 2/3] RUN pytest", started=TIME, completed=TIME)]),
    ) == ["[base 1/2] FROM python", "unchanged", "[test 2/3] RUN pytest", "one", "two", "5 \N{EURO SIGN}", "the end"]
    assert log.failure() is None


def test_the_first_step_that_fails_is_the_reason_and_its_lines_are_told() -> None:
    log = RawLog()
    reason = 'process "/bin/sh -c pytest" did not complete successfully: exit code: 1'
    lines = shown(
        log,
        status(
            vertexes=[vertex("3", "[test 2/3] RUN pytest", started=TIME), vertex("4", "[b 1/1] RUN x", started=TIME)]
        ),
        status(logs=[printed("3", b"FAILED handler_test.py::test_it")]),
        status(vertexes=[vertex("4", "[b 1/1] RUN x", started=TIME, completed=TIME, error="solve: context canceled")]),
        status(vertexes=[vertex("3", "[test 2/3] RUN pytest", started=TIME, completed=TIME, error=reason)]),
        "error: failed to solve: " + reason,
    )
    assert lines == ["[test 2/3] RUN pytest", "[b 1/1] RUN x", "FAILED handler_test.py::test_it"]
    failure = log.failure()
    assert isinstance(failure, FailedTests) and str(failure).endswith("FAILED handler_test.py::test_it")


def test_what_is_no_status_is_shown_as_it_is() -> None:
    log = RawLog()
    text = 'error: failed to dial "unix:///run/b.sock"'
    assert shown(log, "", text, "{broken", '{"logs": [{"vertex": "1", "data": "%"}]}') == [text, "{broken"]
    assert log.failure() is None
