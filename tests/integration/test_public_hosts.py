"""Public hosts of a real proxy over real sockets: which Host header and path reach which function, and which none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from raw_http import BackEnd, RawAnswer, Wire, always, back_end, engine_loops, serving

from stoker_gateway.endpoints import HostPolicy, endpoints_of
from stoker_gateway.link import Limits
from stoker_gateway.proxy.guard import Inside
from stoker_gateway.proxy.hosts import Hosts
from stoker_gateway.proxy.proxy import Proxy
from stoker_gateway.routes import Route, Target
from stoker_sdk.origin import check_origin, owner_label

DOMAIN = "faas.example.org"
OWN = (DOMAIN, "gateway.faas.example.org")
POLICY = HostPolicy(DOMAIN, own_hosts=OWN)
PRIVATE = {"stoker.dev/visibility": "private"}
ROUTES = '[{"host":"api.example.com","path":"/v1/"},{"host":"*.wild.example.com","path":"/","methods":["GET","POST"]}]'


def answering(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return engine_loops()


class Platform:
    """A proxy, a control that says so, and functions that say their names."""

    def __init__(self, proxy: Proxy, wire: Wire) -> None:
        self.proxy = proxy
        self.wire = wire

    def deploy(self, name: str, back: BackEnd, annotations: dict[str, str]) -> None:
        key = f"{name}.openfaas-fn"
        targets = [Target(name, back.address)]
        endpoints = endpoints_of(key, annotations, POLICY)
        self.proxy.put(Route(key, 10.0, 0, targets, annotations=annotations, endpoints=endpoints))

    async def call(
        self, host: bytes, path: bytes = b"/greet", method: bytes = b"GET", headers: bytes = b""
    ) -> RawAnswer:
        head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (method, path, host, headers)
        return await self.wire.ask(head, head_only=method == b"HEAD")


@asynccontextmanager
async def platform(*inside: str) -> AsyncIterator[tuple[Platform, BackEnd]]:
    """With alice's function `greet`, and a control that answers everything with `control`."""
    async with back_end(always(answering(b"control"))) as control, back_end(always(answering(b"greet"))) as back:
        proxy = Proxy(
            control.address,
            lambda key: None,
            max_body=1 << 20,
            max_waiting=10,
            hosts=Hosts(DOMAIN, OWN),
            inside=Inside(inside),
        )
        async with serving(proxy.handle) as wire:
            one = Platform(proxy, wire)
            one.deploy("greet--shop--alice", back, check_origin("alice", "shop", "greet").annotations)
            yield one, back
        proxy.close()


# Hosts


@pytest.mark.parametrize(
    "host",
    [
        b"alice.faas.example.org",
        b"alice.faas.example.org:443",
        b"alice.faas.example.org:",
        b"ALICE.FaaS.Example.ORG",
        b"alice.faas.example.org.",
        b"Alice.faas.example.org.:8443",
        b"alice.faas.example.org..",
    ],
)
async def test_an_owners_host_in_any_spelling_reaches_the_function(host: bytes) -> None:
    async with platform() as (one, _):
        answer = await one.call(host)
        assert (answer.status, answer.body) == (200, b"greet")


@pytest.mark.parametrize(
    "host",
    [
        b"bob.faas.example.org",
        b"x.alice.faas.example.org",
        b"alice..faas.example.org",
        b".faas.example.org",
        b"xn--lice-5qa.faas.example.org",
        b"al%69ce.faas.example.org",
        b"*.faas.example.org",
        b"shop--alice.faas.example.org",
    ],
)
async def test_a_host_under_the_domain_that_nobody_has_is_404(host: bytes) -> None:
    async with platform() as (one, back):
        for path in (b"/greet", b"/function/greet--shop--alice", b"/system/functions", b"/"):
            answer = await one.call(host, path)
            assert (answer.status, answer["X-Stoker-Error"]) == (404, "client; unknown-host")
            assert host.lower() in answer.body
        assert back.heads == []


@pytest.mark.parametrize(
    "host",
    [
        b"faas.example.org",
        b"FAAS.example.org:8080",
        b"gateway.faas.example.org",
        b"faas.example.org.evil.com",
        b"alice-faas.example.org",
        b"notfaas.example.org",
        b"127.0.0.1:8080",
        b"[::1]:8080",
        b"[::ffff:127.0.0.1]",
        b"localhost",
        b"",
    ],
)
async def test_other_hosts_are_the_gateways_as_ever(host: bytes) -> None:
    async with platform() as (one, _):
        assert (await one.call(host, b"/system/info")).body == b"control"
        assert (await one.call(host, b"/function/greet--shop--alice")).body == b"greet"
        assert (await one.call(host, b"/greet")).body == b"control"


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: alice.faas.example.org\r\nHost: bob.faas.example.org\r\n",
        b"Host: user:pw@alice.faas.example.org\r\n",
        b"Host: alice.faas.example.org/greet\r\n",
        b"Host: alice.faas.example.org, x\r\n",
        b"Host: alice.faas.example.org x\r\n",
        "Host: älice.faas.example.org\r\n".encode(),
        b"Host: alice.faas.example.org\x00\r\n",
        b"Host: alice.faas.example.org:443:80\r\n",
        b"Host: alice.faas.example.org:-1\r\n",
        b"",
    ],
)
async def test_a_host_that_two_could_read_differently_is_400(lines: bytes) -> None:
    async with platform() as (one, back):
        answer = await one.wire.ask(b"GET /greet HTTP/1.1\r\n" + lines + b"\r\n")
        assert answer.status == 400
        assert back.heads == []


async def test_the_authority_of_the_target_stands_above_the_header() -> None:
    async with platform() as (one, _):
        answer = await one.wire.ask(b"GET http://ALICE.faas.example.org/greet HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (answer.status, answer.body) == (200, b"greet")
        answer = await one.wire.ask(b"GET http://u@alice.faas.example.org/greet HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.status == 400


async def test_an_old_client_without_a_host_gets_the_gateway() -> None:
    async with platform() as (one, _):
        assert (await one.wire.ask(b"GET /greet HTTP/1.0\r\n\r\n")).body == b"control"


async def test_forwarding_headers_choose_no_host() -> None:
    async with platform() as (one, _):
        forwarded = b"X-Forwarded-Host: alice.faas.example.org\r\nForwarded: host=alice.faas.example.org\r\n"
        assert (await one.call(b"127.0.0.1", b"/greet", headers=forwarded)).body == b"control"


async def test_an_owner_of_an_odd_name_has_a_host_too() -> None:
    async with platform() as (one, back):
        one.deploy("odd", back, {"stoker.dev/owner": "Alice_Corp"})
        host = f"{owner_label('alice_corp')}.{DOMAIN}".encode()
        assert (await one.call(host, b"/odd")).status == 200


# Paths


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        (b"/greet", b"/"),
        (b"/greet/", b"/"),
        (b"/greet?a=/b&c", b"/?a=/b&c"),
        (b"/greet/a/b%2Fc?x=%zz/../", b"/a/b%2Fc?x=%zz/../"),
        (b"/greet//a", b"//a"),
        (b"/greet/.well-known/x", b"/.well-known/x"),
        (b"/greet/a..b/...", b"/a..b/..."),
    ],
)
async def test_the_rest_of_the_path_goes_to_the_function_as_it_came(path: bytes, seen: bytes) -> None:
    async with platform() as (one, back):
        answer = await one.call(b"alice.faas.example.org", path)
        assert answer.status == 200
        head = back.heads[0]
        assert head.startswith(b"GET %b HTTP/1.1\r\n" % seen)
        assert b"Host: alice.faas.example.org\r\n" in head


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/Greet",
        b"/greetings",
        b"//greet",
        b"/gr%65et",
        b"/%2fgreet",
        b"/greet%2f",
        b"/function/greet",
        b"/?greet",
    ],
)
async def test_a_path_that_is_no_function_is_404(path: bytes) -> None:
    async with platform() as (one, back):
        answer = await one.call(b"alice.faas.example.org", path)
        assert (answer.status, answer["X-Stoker-Error"]) == (404, "client; unknown-function")
        assert b"alice.faas.example.org" in answer.body
        assert back.heads == []


@pytest.mark.parametrize(
    "path",
    [b"/greet/..", b"/greet/../x", b"/./greet", b"/greet/%2e%2E/x", b"/greet/.%2e", b"/greet/a/%2e?x", b"/.."],
)
async def test_dot_segments_are_refused(path: bytes) -> None:
    async with platform() as (one, back):
        answer = await one.call(b"alice.faas.example.org", path)
        assert (answer.status, answer["X-Stoker-Error"]) == (400, "client; bad-path")
        assert back.heads == []


# Routes


async def test_the_longest_route_wins_and_the_path_is_whole() -> None:
    async with (
        platform() as (one, back),
        back_end(always(answering(b"users"))) as users,
        back_end(always(answering(b"site"))) as site,
    ):
        one.deploy("api", back, {"stoker.dev/routes": '[{"host":"api.example.com","path":"/v1/"}]'})
        one.deploy("users", users, {"stoker.dev/routes": '[{"host":"api.example.com","path":"/v1/users"}]'})
        one.deploy("site", site, {"stoker.dev/routes": '[{"host":"www.example.com"}]'})
        for path, body in (
            (b"/v1", b"greet"),
            (b"/v1/", b"greet"),
            (b"/v1/user", b"greet"),
            (b"/v1/users", b"users"),
            (b"/v1/users/7?x=1", b"users"),
            (b"/v1/usersx", b"greet"),
            (b"/v1/users%2f7", b"greet"),
        ):
            assert (await one.call(b"API.example.com", path)).body == body, path
        assert users.heads[-1].startswith(b"GET /v1/users/7?x=1 ")
        assert (await one.call(b"www.example.com", b"/any/where")).body == b"site"
        for path in (b"/", b"/v10", b"/system/functions", b"/function/api"):
            assert (await one.call(b"api.example.com", path)).status == 404, path
        one.proxy.remove("users.openfaas-fn")
        assert (await one.call(b"api.example.com", b"/v1/users")).body == b"greet"
        one.proxy.remove("api.openfaas-fn")
        assert (await one.call(b"api.example.com", b"/v1")).body == b"control"


async def test_a_wildcard_covers_one_label_and_methods_are_kept() -> None:
    async with platform() as (one, back):
        one.deploy("wild", back, {"stoker.dev/routes": ROUTES})
        assert (await one.call(b"any.wild.example.com", b"/x")).status == 200
        refused = await one.call(b"any.wild.example.com", b"/x", b"DELETE")
        assert (refused.status, refused["Allow"]) == (405, "GET, POST")
        assert (await one.call(b"a.b.wild.example.com", b"/x")).body == b"control"
        assert (await one.call(b"wild.example.com", b"/x")).body == b"control"


async def test_addresses_follow_the_table() -> None:
    async with platform() as (one, back):
        host = b"bob.faas.example.org"
        assert (await one.call(host, b"/f")).status == 404
        one.deploy("f", back, {"stoker.dev/owner": "bob"})
        assert (await one.call(host, b"/f")).status == 200
        one.deploy("f", back, {"stoker.dev/owner": "carol"})
        assert (await one.call(host, b"/f")).status == 404
        assert (await one.call(b"carol.faas.example.org", b"/f")).status == 200
        one.proxy.replace_table([])
        assert (await one.call(b"carol.faas.example.org", b"/f")).status == 404


async def test_many_spellings_do_not_pile_up() -> None:
    async with platform() as (one, _):
        client = await one.wire.client()
        for number in range(5000):
            await client.send(b"GET /greet HTTP/1.1\r\nHost: h%d.faas.example.org\r\n\r\n" % number)
            assert (await client.answer()).status == 404
        assert len(one.proxy._hosts._spelled) <= 4096


# Private functions


async def test_a_private_function_is_reached_from_inside_only() -> None:
    async with platform("127.0.0.0/8") as (one, back):
        one.deploy("hidden", back, {"stoker.dev/owner": "alice"} | PRIVATE)
        assert (await one.call(b"alice.faas.example.org", b"/hidden")).status == 404
        assert (await one.call(b"127.0.0.1", b"/function/hidden")).status == 200
        for header in (b"X-Forwarded-For: 127.0.0.1\r\n", b"forwarded: for=127.0.0.1\r\n"):
            refused = await one.call(b"127.0.0.1", b"/function/hidden", headers=header)
            assert (refused.status, refused["X-Stoker-Error"]) == (404, "client; unknown-function")
            assert (await one.call(b"127.0.0.1", b"/async-function/hidden", b"POST", header)).status == 404
    async with platform("10.0.0.0/8") as (one, back):
        one.deploy("hidden", back, PRIVATE)
        unknown = await one.call(b"127.0.0.1", b"/function/hiddem")
        hidden = await one.call(b"127.0.0.1", b"/function/hidden")
        assert hidden.status == unknown.status == 404
        assert hidden.body == unknown.body.replace(b"hiddem", b"hidden")


# Rates


async def test_an_owner_over_the_rate_is_429_and_others_are_not() -> None:
    async with platform("127.0.0.0/8") as (one, back):
        one.deploy("f", back, {"stoker.dev/owner": "bob"})
        one.proxy.rates.set(Limits(0.0, {"alice": 3.0}))
        answers = [await one.call(b"alice.faas.example.org") for _ in range(6)]
        assert [answer.status for answer in answers].count(200) in (3, 4)  # a tenth of a second may pass
        refused = answers[-1]
        assert (refused.status, refused["X-Stoker-Error"]) == (429, "client; owner-rate")
        assert refused["Retry-After"] == "1"
        assert (await one.call(b"bob.faas.example.org", b"/f")).status == 200
        outside = await one.call(b"x", b"/function/greet--shop--alice", headers=b"X-Forwarded-For: 8.8.8.8\r\n")
        assert outside.status == 429
        assert (await one.call(b"x", b"/function/greet--shop--alice")).status == 200  # from inside
        assert one.proxy.rates.demand() == {"alice": 7}
