"""What a tag means now, asked of real registries: open, behind a password, behind tokens, with a CA of their own."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from registry import PASSWORD, USER, RunningRegistry, basic
from token_service import TokenService

from stoker_gateway.providers.images.credentials import Login
from stoker_gateway.providers.kubernetes.registry import Registries
from stoker_sdk.errors import BadInput, StokerError, Unavailable

MakeRegistry = Callable[..., RunningRegistry]


@pytest.fixture
def make_registry(tmp_path: Path) -> Iterator[MakeRegistry]:
    with ExitStack() as running:

        def make(**settings: Any) -> RunningRegistry:
            one = RunningRegistry(tmp_path, **settings)
            running.callback(one.stop)
            return one

        yield make


def login(registry: RunningRegistry, password: str = PASSWORD) -> list[dict[str, Login]]:
    return [{registry.address: Login(USER, password, "secret 'pull'")}]


async def test_a_tag_becomes_the_digest_that_it_means_now(make_registry: MakeRegistry) -> None:
    registry = make_registry()
    first = registry.push("team/greet", "latest", "one")
    image = f"{registry.address}/team/greet"
    assert await Registries().pin(image) == f"{image}@{first}"
    second = registry.push("team/greet", "latest", "two")
    assert second != first
    assert await Registries().pin(f"{image}:latest") == f"{image}@{second}"


async def test_a_digest_is_taken_at_its_word_and_nobody_is_asked() -> None:
    image = "localhost:1/greet@sha256:" + "a" * 64
    assert await Registries().pin(image) == image


async def test_a_tag_that_does_not_exist_is_named_with_its_registry(make_registry: MakeRegistry) -> None:
    registry = make_registry()
    registry.push("greet", "1", "one")
    with pytest.raises(BadInput, match=f"greet:2 does not exist in {registry.address}"):
        await Registries().pin(f"{registry.address}/greet:2")


async def test_a_password_is_asked_for_and_given(make_registry: MakeRegistry) -> None:
    registry = make_registry(password=True)
    digest = registry.push("greet", "1", "one", basic())
    image = f"{registry.address}/greet"
    assert await Registries().pin(f"{image}:1", login(registry)) == f"{image}@{digest}"
    with pytest.raises(BadInput, match=r"to nobody without credentials.*dockerconfigjson"):
        await Registries().pin(f"{image}:1")


async def test_a_wrong_password_is_told_soon_with_the_secrets_name_and_without_the_password(
    make_registry: MakeRegistry,
) -> None:
    registry = make_registry(password=True)
    begun = time.monotonic()
    with pytest.raises(BadInput, match=f"{registry.address} refuses the credentials of secret 'pull'") as caught:
        await Registries().pin(f"{registry.address}/greet:1", login(registry, "wrong"))
    assert time.monotonic() - begun < 10
    assert "wrong" not in str(caught.value)


async def test_a_token_is_fetched_where_the_registry_says(make_registry: MakeRegistry, tmp_path: Path) -> None:
    tokens = TokenService(tmp_path / "tokens", basic()["Authorization"])
    try:
        registry = make_registry(token=tokens.settings)
        pusher = {"Authorization": f"Bearer {tokens.token('repository:greet:pull,push')}"}
        digest = registry.push("greet", "1", "one", pusher)
        image = f"{registry.address}/greet"
        assert await Registries().pin(f"{image}:1", login(registry)) == f"{image}@{digest}"
        assert "scope=repository:greet:pull&" in tokens.asked[-1].replace("%3A", ":")
        for logins in (login(registry, "wrong"), []):
            with pytest.raises(BadInput, match=registry.address):
                await Registries().pin(f"{image}:1", logins)
    finally:
        tokens.stop()


async def test_a_private_authority_is_trusted_when_it_is_named(make_registry: MakeRegistry) -> None:
    registry = make_registry(tls=True)
    digest = registry.push("greet", "1", "one")
    image = f"{registry.address}/greet"
    assert await Registries(ca=registry.ca).pin(f"{image}:1") == f"{image}@{digest}"
    with pytest.raises(Unavailable, match="certificate"):
        await Registries().pin(f"{image}:1")


async def test_http_is_spoken_to_loopback_and_to_whom_the_operator_names(make_registry: MakeRegistry) -> None:
    registry = make_registry()
    digest = registry.push("greet", "1", "one")
    by_name = f"{socket.gethostname()}:{registry.address.rpartition(':')[2]}"
    with pytest.raises(Unavailable):
        await Registries().pin(f"{by_name}/greet:1")
    assert await Registries(plain=[by_name]).pin(f"{by_name}/greet:1") == f"{by_name}/greet@{digest}"


async def test_nobody_listening_and_silence_are_told_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(Unavailable, match=f"localhost:{port} cannot be asked.*no answer in time"):
            await Registries().pin(f"localhost:{port}/greet:1")
        assert time.monotonic() - begun < 10
    with pytest.raises(Unavailable, match="cannot be asked"):
        await Registries().pin(f"localhost:{port}/greet:1")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 500 No\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 429 No\r\n\r\n", "too many requests"),
        (b"HTTP/1.1 401 No\r\nWWW-Authenticate: Magic x\r\n\r\n", "not known here"),
        (b'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="ftp://x/"\r\n\r\n', "cannot be asked"),
        (b"HTTP/1.1 302 No\r\nLocation: /\r\n\r\n", "cannot be asked"),
        (b"\x00\x01\r\n\r\n", "cannot be asked"),
        (b"HTTP/1.1 200 OK\r\nDocker-Content-Digest: sha256:../x\r\nContent-Length: 0\r\n\r\n", ""),
    ],
)
async def test_whatever_a_registry_answers_is_one_of_our_errors(answer: bytes, words: str) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        image = f"localhost:{server.sockets[0].getsockname()[1]}/greet:1"
        if not words:  # what it says is no digest, so the manifest itself is asked for
            assert (await Registries().pin(image)).endswith(
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            )
            return
        with pytest.raises(StokerError, match=words):
            await Registries().pin(image)
