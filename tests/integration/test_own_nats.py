"""`stoker serve --nats`: the user's own server, with each kind of credentials, wrong ones, and none."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_nats import Jwts, OwnNats, Tls
from running_platform import Platform, wait_for

from stoker_sdk.errors import StokerError

ECHO = "def handle(req): return req"
USER = 'authorization { user: "stoker", password: "correct" }'
OTHER = 'authorization { user: "stoker", password: "changed" }'


@pytest.fixture
def make_nats(tmp_path: Path) -> Iterator[Callable[..., OwnNats]]:
    made: list[OwnNats] = []

    def make(settings: str = "", **more: str) -> OwnNats:
        made.append(OwnNats(tmp_path, settings, **more))
        return made[-1].start()

    yield make
    for one in made:
        one.stop()


def secret(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(f"{text}\n")
    return str(file)


def works(platform: Platform, name: str = "echo") -> bool:
    """Whether a call is taken, run and known as done; 503 until then, always with `Retry-After`."""
    answer = platform.call_later(name, b"x")
    if answer.status != 202:
        assert answer.status == 503 and answer.headers["retry-after"], answer
        return False
    id = answer.headers["x-call-id"]
    wait_for(lambda: _is_done(platform, id), f"the end of {id}")
    return True


def _is_done(platform: Platform, id: str) -> bool:
    try:
        return platform.client.call_status(id).state == "done"
    except StokerError:
        return False


def flags(kind: str, folder: Path) -> tuple[str, tuple[str, ...], str]:
    """The server's settings, the platform's flags, and the URL's scheme."""
    password = ("--nats-user", "stoker", "--nats-password-file", secret(folder, "password", "correct"))
    if kind == "user":
        return USER, password, "nats"
    if kind == "token":
        return 'authorization { token: "correct" }', ("--nats-token-file", secret(folder, "token", "correct")), "nats"
    if kind == "creds":
        jwts = Jwts(folder)
        return jwts.settings, ("--nats-creds", str(jwts.creds)), "nats"
    tls = Tls(folder)
    return f"{tls.settings}\n{USER}", ("--nats-ca", str(tls.ca), *password), "tls"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["user", "token", "creds", "tls"])
def test_each_kind_of_credentials_works_and_through_a_restart(
    kind: str, tmp_path: Path, make_nats: Callable[..., OwnNats], make_platform: Callable[..., Platform]
) -> None:
    settings, given, scheme = flags(kind, tmp_path)
    nats = make_nats(settings, scheme=scheme)
    platform = make_platform(flags=("--nats", nats.url, *given))
    platform.deploy("echo", ECHO)
    assert works(platform)
    nats.stop()
    refused = platform.call_later("echo")
    assert refused.status == 503 and refused.headers["retry-after"]
    nats.start()
    wait_for(lambda: works(platform), "calls to work again")
    for word in ("correct", "BEGIN", "eyJ"):
        assert word not in platform.log


@pytest.mark.slow
def test_wrong_credentials_are_told_and_the_right_ones_taken_up(
    tmp_path: Path, make_nats: Callable[..., OwnNats], make_platform: Callable[..., Platform]
) -> None:
    nats = make_nats(USER)
    password = tmp_path / "password"
    password.write_text("mistaken")
    given = ("--nats-user", "stoker", "--nats-password-file", str(password))
    platform = make_platform(flags=("--nats", nats.url, *given))
    assert f"{nats.url} refuses the credentials" in platform.log and f"the password in {password}" in platform.log
    assert "mistaken" not in platform.log
    platform.deploy("echo", ECHO)
    assert not works(platform)
    password.write_text("correct")
    wait_for(lambda: works(platform), "calls to work with the right password")
    nats.configure(OTHER)  # it changes while we are connected
    wait_for(lambda: not works(platform), "calls to be refused")
    password.write_text("changed")
    wait_for(lambda: works(platform), "calls to work with the changed password", 30)


@pytest.mark.slow
def test_a_user_whose_token_expires_is_out_until_the_file_is_renewed(
    tmp_path: Path, make_nats: Callable[..., OwnNats], make_platform: Callable[..., Platform]
) -> None:
    jwts = Jwts(tmp_path, lasts=20)
    nats = make_nats(jwts.settings)
    platform = make_platform(flags=("--nats", nats.url, "--nats-creds", str(jwts.creds)))
    platform.deploy("echo", ECHO)
    assert works(platform)
    refused = [
        f"{who} WARNING broker: {nats.url} refuses the credentials" for who in ("proxy 0", "control", "worker 0")
    ]
    wait_for(lambda: all(line in platform.log for line in refused), "the end of the token", 40)
    wait_for(lambda: not works(platform), "calls to be refused")
    jwts.renew()
    wait_for(lambda: works(platform), "calls to work with the renewed file", 30)


@pytest.mark.slow
def test_a_certificate_of_an_unknown_ca_and_credentials_that_are_missing_are_told(
    tmp_path: Path, make_nats: Callable[..., OwnNats], make_platform: Callable[..., Platform]
) -> None:
    tls = Tls(tmp_path / "server")
    nats = make_nats(f"{tls.settings}\n{USER}", scheme="tls")
    stranger = Tls(tmp_path / "stranger")
    platform = make_platform(flags=("--nats", nats.url, "--nats-ca", str(stranger.ca)))
    assert "is not trusted" in platform.log and "--nats-ca" in platform.log
    platform.stop()
    platform.flags = ("--nats", nats.url, "--nats-ca", str(tls.ca))
    platform.start()
    assert "refuses the credentials" in platform.log and "it wants some: --nats-user" in platform.log


@pytest.mark.slow
def test_a_server_without_jetstream_is_told_and_works_when_it_has_it(
    tmp_path: Path, make_nats: Callable[..., OwnNats], make_platform: Callable[..., Platform]
) -> None:
    nats = make_nats()
    nats.jetstream_off = True
    nats.configure("")
    platform = make_platform(flags=("--nats", nats.url))
    platform.deploy("echo", ECHO)
    wait_for(lambda: "has no JetStream" in platform.log, "the reason")
    assert not works(platform)
    nats.jetstream_off = False
    nats.configure("")
    wait_for(lambda: works(platform), "calls to work", 30)


@pytest.mark.parametrize(
    ("flag", "content", "message"),
    [
        ("--nats-creds", "no creds", "are not a JWT and a seed"),
        (
            "--nats-creds",
            "-----BEGIN USER NKEY SEED-----\nSUAB\n------END USER NKEY SEED------\n",
            "are not a JWT and a seed",
        ),
        ("--nats-ca", "no certificate", "cannot be used: it holds no PEM certificate"),
    ],
)
def test_files_that_cannot_be_used_end_the_command(tmp_path: Path, flag: str, content: str, message: str) -> None:
    platform = Platform()
    try:
        file = secret(tmp_path, "file", content)
        command = platform.command("--nats", "nats://localhost:1", flag, file)
        done = subprocess.run(command, env=platform.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and message in done.stderr and content not in done.stderr, done
    finally:
        platform.delete()
