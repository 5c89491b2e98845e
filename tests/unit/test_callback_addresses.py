"""Which addresses callbacks may call, whatever a name resolves to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from stoker_gateway.queue.addresses import (
    Address,
    Guard,
    Refused,
    is_own_address,
    kind_of,
    system_resolver,
)
from stoker_sdk.errors import BadInput, Unavailable

PUBLIC = "93.184.215.14"
MakeGuard = Callable[..., Guard]


@pytest.fixture
def guard() -> Iterator[MakeGuard]:
    """Makes guards whose names are told: `guard(names={"a.example": ["10.0.0.1"]}, allow=[…])`."""
    made: list[Guard] = []

    def make(names: dict[str, list[str]] | None = None, **settings: object) -> Guard:
        own: Callable[[Address], bool] = settings.pop("own", lambda address: False)  # type: ignore[assignment]
        made.append(Guard(resolver=lambda host: (names or {})[host], own=own, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


async def called(guard: Guard, host: str) -> list[str]:
    return [str(address) for address in await guard.addresses(host)]


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (PUBLIC, "public"),
        ("2606:2800:220:1::1", "public"),
        ("64:ff9b::5db8:d70e", "public"),
        ("127.0.0.1", "private"),
        ("127.255.0.9", "private"),
        ("::1", "private"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("198.18.0.1", "private"),
        ("192.0.2.1", "private"),
        ("fc00::1", "private"),
        ("fd12:3456::1", "private"),
        ("fec0::1", "private"),
        ("2001:db8::1", "private"),
        ("::ffff:127.0.0.1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::7f00:1", "private"),
        ("64:ff9b::a00:1", "private"),
        ("2002:7f00:1::", "private"),
        ("2002:a00:1::1", "private"),
        ("169.254.169.254", "special"),
        ("::ffff:169.254.169.254", "special"),
        ("64:ff9b::a9fe:a9fe", "special"),
        ("2002:a9fe:a9fe::1", "special"),
        ("fe80::1", "special"),
        ("fd00:ec2::254", "special"),
        ("100.100.100.200", "special"),
        ("168.63.129.16", "special"),
        ("192.0.0.192", "special"),
        ("0.0.0.0", "special"),
        ("0.1.2.3", "special"),
        ("::", "special"),
        ("::127.0.0.1", "special"),
        ("224.0.0.1", "special"),
        ("239.255.255.250", "special"),
        ("ff02::1", "special"),
        ("240.0.0.1", "special"),
        ("255.255.255.255", "special"),
        ("64:ff9b:1::7f00:1", "special"),
        ("2001:0:1234::1", "special"),
    ],
)
async def test_every_address_that_is_not_public_is_refused(address: str, kind: str, guard: MakeGuard) -> None:
    assert kind_of(ip_address(address)) == kind
    plain = guard({"a.example": [address]})
    for host in (address, "a.example"):
        if kind == "public":
            assert await called(plain, host) == [str(ip_address(address))]
        else:
            with pytest.raises(Refused, match="not allowed"):
                await plain.addresses(host)


async def test_a_laptop_may_call_itself_but_not_the_clouds_metadata(guard: MakeGuard) -> None:
    laptop = guard(private_allowed=True)
    for address in ("127.0.0.1", "192.168.1.1", "::1", PUBLIC):
        assert await called(laptop, address) == [address]
    for address in ("169.254.169.254", "fd00:ec2::254", "0.0.0.0", "224.0.0.1"):
        with pytest.raises(Refused, match="link-local, multicast or reserved"):
            await laptop.addresses(address)


async def test_the_refusal_says_what_to_do(guard: MakeGuard) -> None:
    with pytest.raises(Refused, match=r"a\.example is 10\.0\.0\.1.*--allow-private-callbacks"):
        await guard({"a.example": ["10.0.0.1"]}).addresses("a.example")


async def test_of_several_addresses_only_those_that_are_allowed_are_called(guard: MakeGuard) -> None:
    mixed = guard({"a.example": ["10.0.0.1", PUBLIC, "::1"]})
    assert await called(mixed, "A.example.") == [PUBLIC]


async def test_a_public_address_of_this_machine_counts_as_private(guard: MakeGuard) -> None:
    own: Callable[[Address], bool] = lambda address: str(address) == PUBLIC  # noqa: E731
    with pytest.raises(Refused, match="private"):
        await guard(own=own).addresses(PUBLIC)
    with pytest.raises(Refused, match="private"):
        await guard(own=own).addresses("::ffff:" + PUBLIC)
    assert await called(guard(own=own, private_allowed=True), PUBLIC) == [PUBLIC]


def test_the_machine_knows_its_own_addresses() -> None:
    assert is_own_address(ip_address("127.0.0.1"))
    assert not is_own_address(ip_address("192.0.2.1"))
    assert not is_own_address(ip_address("2001:db8::1"))


NAMES = {"hooks.example.org": ["10.1.2.3"], "hooks.example.com": [PUBLIC], "meta.example.org": ["169.254.169.254"]}


@pytest.mark.parametrize(
    ("allow", "deny", "host", "allowed"),
    [
        (["10.1.0.0/16"], [], "hooks.example.org", True),
        (["10.1.0.0/16"], [], "10.2.0.1", False),
        (["10.1.0.0/16"], [], "hooks.example.com", False),
        (["public", "10.1.0.0/16"], [], "hooks.example.com", True),
        (["private"], [], "hooks.example.org", True),
        (["private"], [], "hooks.example.com", False),
        (["*.example.org"], [], "hooks.example.org", True),
        (["*.example.org"], [], "hooks.example.com", False),
        (["*.example.org"], [], "meta.example.org", False),
        (["*.EXAMPLE.org"], [], "HOOKS.example.org.", True),
        (["169.254.169.254"], [], "meta.example.org", True),
        (["10.1.2.3/16"], [], "::ffff:10.1.9.9", True),
        ([], ["*.example.com"], "hooks.example.com", False),
        ([], [PUBLIC], "hooks.example.com", False),
        ([], ["93.0.0.0/8"], "::ffff:" + PUBLIC, False),
        ([], ["93.0.0.0/8"], "64:ff9b::5db8:d70e", False),
        (["*.example.org"], ["10.0.0.0/8"], "hooks.example.org", False),
        (["10.0.0.0/8"], ["hooks.*"], "hooks.example.org", False),
        (["private"], ["10.1.2.3"], "10.1.2.3", False),
    ],
)
async def test_the_operators_lists_decide_and_deny_wins(
    allow: list[str], deny: list[str], host: str, allowed: bool, guard: MakeGuard
) -> None:
    made = guard(NAMES, allow=allow, deny=deny)
    if allowed:
        assert await made.addresses(host)
    else:
        with pytest.raises(Refused):
            await made.addresses(host)


async def test_a_denied_host_is_not_even_resolved(guard: MakeGuard) -> None:
    with pytest.raises(Refused, match="denied by the operator"):
        await guard({}, deny=["*.example"]).addresses("a.example")


@pytest.mark.parametrize("entry", ["", "http://a.example", "10.0.0.0/40", "a b", "private", "10.0.0.256"])
def test_an_entry_that_says_nothing_is_refused(entry: str) -> None:
    with pytest.raises(BadInput, match="neither a host"):
        Guard(deny=[entry])


async def test_a_name_that_cannot_be_resolved_is_no_refusal() -> None:
    def failing(host: str) -> list[str]:
        raise OSError(-2, "Name or service not known")

    for resolver, reason in ((failing, "not known"), (lambda host: [], "no address")):
        guard = Guard(resolver=resolver)
        with pytest.raises(Unavailable, match=reason):
            await guard.addresses("a.example")
        guard.close()


async def test_names_are_resolved_beside_the_loop() -> None:
    threads: list[threading.Thread] = []

    def resolver(host: str) -> list[str]:
        threads.append(threading.current_thread())
        return [PUBLIC]

    guard = Guard(resolver=resolver)
    await guard.addresses("a.example")
    guard.close()
    assert threads[0] is not threading.main_thread()


def test_the_machines_resolver_gives_each_address_once() -> None:
    found = system_resolver("127.0.0.1")
    assert found == ["127.0.0.1"]
