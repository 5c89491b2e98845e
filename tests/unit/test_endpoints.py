"""The table of public addresses: what functions ask for, who has it, and which deploys are refused."""

from __future__ import annotations

import json
import re
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_origin import ORIGINS

from stoker_gateway.endpoints import Endpoints, HostPolicy, endpoints_of
from stoker_sdk.errors import BadInput, Conflict
from stoker_sdk.names import DEFAULT_NAMESPACE
from stoker_sdk.origin import Origin, check_origin

POLICY = HostPolicy("faas.example.org", own_hosts=("faas.example.org", "gateway.faas.example.org", "ops.corp.com"))
PRIVATE = {"stoker.dev/visibility": "private"}


def key(name: str) -> str:
    return f"{name}.{DEFAULT_NAMESPACE}"


def owned(owner: str, *routes: tuple[str, str], repository: str = "r", function: str = "f") -> dict[str, str]:
    return check_origin(owner, repository, function).annotations | routed(*routes)


def routed(*routes: tuple[str, str]) -> dict[str, str]:
    text = json.dumps([{"host": host, "path": path} for host, path in routes])
    return {"stoker.dev/routes": text} if routes else {}


def addresses(annotations: dict[str, str], name: str = "f") -> list[str]:
    return [str(endpoint) for endpoint in endpoints_of(key(name), annotations, POLICY)]


# What a function asks for


def test_an_owned_function_is_on_its_owners_host() -> None:
    assert addresses(owned("Alice", function="greet")) == ["alice.faas.example.org/greet/"]
    branch = check_origin("alice", "shop", "greet", branch="dev").annotations
    assert addresses(branch) == ["dev--shop--alice.faas.example.org/greet/"]


def test_a_function_deployed_by_hand_is_there_by_its_own_name() -> None:
    assert addresses({"stoker.dev/owner": "alice"}, "hello") == ["alice.faas.example.org/hello/"]
    assert addresses({}) == []


def test_without_a_domain_owners_have_no_host() -> None:
    assert endpoints_of(key("f"), owned("alice"), HostPolicy()) == []


def test_routes_are_further_addresses_and_keep_the_path() -> None:
    annotations = owned("alice", ("api.example.com", "/v1/"), ("", "/old"), ("www.example.com", ""))
    assert addresses(annotations)[1:] == [
        "api.example.com/v1/",
        "alice.faas.example.org/old/",
        "www.example.com/",
    ]
    own, *others = endpoints_of(key("f"), annotations, POLICY)
    assert own.strips and not any(other.strips for other in others)


def test_a_private_function_has_no_address() -> None:
    assert addresses(owned("alice") | PRIVATE) == []
    with pytest.raises(BadInput, match="private function has no public address"):
        addresses(owned("alice", ("api.example.com", "/")) | PRIVATE)


@pytest.mark.parametrize(
    ("host", "path", "words"),
    [
        ("faas.example.org", "/", "platform's"),
        ("bob.faas.example.org", "/", "platform's"),
        ("x.alice.faas.example.org", "/", "platform's"),
        ("*.faas.example.org", "/", "platform's"),
        ("*.example.org", "/", "platform's"),
        ("ops.corp.com", "/system/", "gateway's own"),
        ("*.corp.com", "/", "gateway's own"),
        ("localhost", "/", "cannot be a public one"),
        ("x.localhost", "/", "cannot be a public one"),
        ("gateway.openfaas.svc", "/", "cannot be a public one"),
        ("gateway.openfaas.svc.cluster.local", "/", "cannot be a public one"),
        ("127.0.0.1", "/", "cannot be a public one"),
        ("API.example.com", "/", "lower case"),
        ("api.example.com:443", "/", "without scheme and port"),
        ("api.example.com.", "/", "not a host name"),
        ("u@api.example.com", "/", "not a host name"),
        ("[::1]", "/", "not a host name"),
        ("bücher.example", "/", "not a host name"),
        ("api.example.com", "/a/../b", "not allowed"),
        ("api.example.com", "/a//b", "without //"),
        ("api.example.com", "/%2e%2e", "without // and %"),
        ("api.example.com", "v1", "not allowed"),
        ("", "", "a host, a path, or both"),
    ],
)
def test_hosts_and_paths_that_are_not_the_functions_own_are_refused(host: str, path: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        addresses(owned("alice", (host, path)))


def test_a_route_without_a_host_needs_one_of_the_functions_own() -> None:
    with pytest.raises(BadInput, match="names no host"):
        addresses(routed(("", "/v1")))
    assert endpoints_of(key("f"), routed(("", "/v1")), HostPolicy()) == []


def test_an_owner_who_is_called_like_the_gateway_gets_no_host() -> None:
    with pytest.raises(BadInput, match="gateway's own"):
        addresses(owned("gateway"))


def test_the_operator_may_say_which_hosts_routes_may_name() -> None:
    policy = HostPolicy("faas.example.org", route_hosts=("api.example.com", "*.customers.net"))
    for host in ("api.example.com", "a.customers.net"):
        assert endpoints_of(key("f"), routed((host, "/")), policy)
    with pytest.raises(BadInput, match="not among those that these routes may name"):
        endpoints_of(key("f"), routed(("a.b.customers.net", "/")), policy)


def test_a_host_may_be_given_to_one_owner() -> None:
    policy = HostPolicy("faas.example.org", route_hosts=("Alice=shop.example.com", "*.example.com", "bob=bob.net"))
    for owner, host, has in (
        ("alice", "shop.example.com", True),
        ("alice", "api.example.com", True),
        ("bob", "api.example.com", True),
        ("bob", "bob.net", True),
        ("bob", "shop.example.com", False),
        ("bob", "*.example.com", False),  # the shop is among these
        ("alice", "bob.net", False),
        ("carol", "elsewhere.org", False),
    ):
        asked = owned(owner, (host, "/"))
        if has:
            assert endpoints_of(key("f"), asked, policy)[1].host == host
            continue
        with pytest.raises(BadInput, match=re.escape(f"--route-host {owner}={host}`")):
            endpoints_of(key("f"), asked, policy)
    with pytest.raises(BadInput):
        endpoints_of(key("f"), routed(("shop.example.com", "/")), policy)


@pytest.mark.parametrize(
    ("owner", "host", "has"),
    [
        ("alice", "a.x.com", True),
        ("alice", "*.x.com", False),
        ("alice", "b.x.com", False),
        ("alice", "c.y.com", True),
        ("alice", "*.y.com", False),  # bob's is among these
        ("alice", "b.y.com", False),
        ("bob", "b.y.com", True),
        ("bob", "c.y.com", False),
        ("bob", "*.y.com", False),
        ("carol", "both.z.com", True),
        ("bob", "both.z.com", True),
        ("alice", "both.z.com", False),
    ],
)
def test_what_is_given_is_neither_more_nor_another_s(owner: str, host: str, has: bool) -> None:
    given = ("alice=a.x.com", "alice=*.y.com", "bob=b.y.com", "bob=both.z.com", "carol=both.z.com")
    policy = HostPolicy("faas.example.org", route_hosts=given)
    if has:
        assert endpoints_of(key("f"), owned(owner, (host, "/")), policy)[1].host == host
        return
    with pytest.raises(BadInput, match="not among those that these routes may name"):
        endpoints_of(key("f"), owned(owner, (host, "/")), policy)


def test_who_pushes_to_a_forge_has_the_hosts_that_were_given_and_no_others() -> None:
    asked = owned("alice", ("shop.example.com", "/")) | {"stoker.dev/account": "github 1"}
    with pytest.raises(BadInput, match="--route-host alice=shop"):
        endpoints_of(key("f"), asked, POLICY)
    given = HostPolicy("faas.example.org", route_hosts=("alice=shop.example.com",))
    assert [each.host for each in endpoints_of(key("f"), asked, given)] == [
        "alice.faas.example.org",
        "shop.example.com",
    ]
    own = owned("alice", ("", "/v1")) | {"stoker.dev/account": "github 1"}
    assert len(endpoints_of(key("f"), own, POLICY)) == 2  # paths of the own host need nobody's leave


@pytest.mark.parametrize("text", ["{", "{}", '[{"host": 1}]', json.dumps([{"path": "/a"}] * 101)])
def test_routes_that_are_no_list_of_routes_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"stoker\.dev/routes"):
        addresses({"stoker.dev/routes": text})


# Who has it


def test_the_older_of_two_has_the_address_and_the_other_is_told() -> None:
    claims = [("old", "2026-01-01T00:00:00Z"), ("new", "2026-01-02T00:00:00Z"), ("same", "2026-01-02T00:00:00Z")]
    for order in permutations(claims):
        table = Endpoints(POLICY)
        for name, created_at in order:
            table.put(key(name), routed(("api.example.com", "/v1")), created_at)
        assert table.urls(key("old")) == ["https://api.example.com/v1"]
        assert table.urls(key("new")) == table.urls(key("same")) == []
        assert table.refused(key("new")) == [f"api.example.com/v1/ belongs to {key('old')}"]


def test_what_a_removed_function_had_goes_to_the_next_one() -> None:
    table = Endpoints(POLICY)
    table.put(key("a"), routed(("api.example.com", "/v1")), "1")
    assert table.put(key("b"), routed(("api.example.com", "/v1")), "2") == {key("b")}
    assert table.remove(key("a")) == {key("a"), key("b")}
    assert table.urls(key("b")) == ["https://api.example.com/v1"]
    assert table.refused(key("b")) == []


def test_a_host_belongs_to_the_owner_of_the_oldest_function_there() -> None:
    table = Endpoints(POLICY)
    table.put(key("theirs"), owned("bob", ("api.example.com", "/v2")), "2")
    assert table.put(key("mine"), owned("alice", ("api.example.com", "/v1")), "1") >= {key("theirs"), key("mine")}
    assert "https://api.example.com/v1" in table.urls(key("mine"))
    assert table.urls(key("theirs")) == ["https://bob.faas.example.org/f"]
    assert table.refused(key("theirs")) == ["api.example.com/v2/ belongs to a function of another owner"]


def test_what_cannot_be_used_is_shown_and_harms_nobody_else() -> None:
    table = Endpoints(POLICY)
    table.put(key("a"), {"stoker.dev/routes": "{"}, "1")
    assert table.urls(key("a")) == []
    assert "stoker.dev/routes" in table.refused(key("a"))[0]


def test_the_port_that_clients_use_stands_in_the_url() -> None:
    table = Endpoints(HostPolicy("stoker.localhost", 8443))
    table.put(key("f"), {"stoker.dev/owner": "alice"}, "1")
    assert table.urls(key("f")) == ["https://alice.stoker.localhost:8443/f"]


@given(st.lists(st.tuples(ORIGINS, st.integers(0, 3)), max_size=8, unique_by=lambda pair: pair[0]))
def test_no_host_and_path_ever_has_two_functions(origins: list[tuple[Origin, int]]) -> None:
    table = Endpoints(POLICY)
    for origin, age in origins:
        table.put(key(origin.name), origin.annotations, str(age))
    held = [endpoint for origin, _ in origins for endpoint in table.held(key(origin.name))]
    assert len({(endpoint.host, endpoint.path) for endpoint in held}) == len(held)
    asked = {(origin.host_label, origin.path) for origin, _ in origins}
    assert len(held) == len(asked)  # and whatever is asked for, somebody has


ASKED = st.lists(
    st.tuples(st.sampled_from(["", "api.example.com", "*.example.com"]), st.sampled_from(["", "/", "/a", "/a/", "/b"])),
    max_size=3,
).map(lambda routes: [route for route in routes if route != ("", "")])


@given(st.lists(st.tuples(ORIGINS, ASKED, st.integers(0, 3)), max_size=6, unique_by=lambda each: each[0]))
def test_with_routes_too_a_place_has_one_function_and_a_host_one_owner(
    origins: list[tuple[Origin, list[tuple[str, str]], int]],
) -> None:
    table = Endpoints(POLICY)
    for origin, routes, age in origins:
        table.put(key(origin.name), origin.annotations | routed(*routes), str(age))
    places: dict[tuple[str, str], str] = {}
    owners: dict[str, str] = {}
    for origin, _, _ in origins:
        for endpoint in table.held(key(origin.name)):
            assert places.setdefault((endpoint.host, endpoint.path), origin.name) == origin.name
            assert owners.setdefault(endpoint.host, origin.owner) == origin.owner


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 2)), max_size=20))
def test_the_table_is_the_same_in_whatever_way_it_came_about(steps: list[tuple[str, str, int]]) -> None:
    table, now = Endpoints(POLICY), {}
    for name, path, age in steps:
        annotations = owned(f"o{age}", ("api.example.com", f"/{path}"), function=name)
        table.put(key(name), annotations, str(age))
        now[name] = (annotations, str(age))
    fresh = Endpoints(POLICY)
    for name, (annotations, age_text) in now.items():
        fresh.put(key(name), annotations, age_text)
    assert {name: table.held(key(name)) for name in now} == {name: fresh.held(key(name)) for name in now}


# Before a deploy


def test_a_deploy_that_asks_for_what_another_has_is_refused_with_both_names() -> None:
    table = Endpoints(POLICY)
    table.put(key("users"), routed(("api.example.com", "/v1")), "1")
    with (
        pytest.raises(Conflict, match=r"api\.example\.com/v1/.*'users'.*'people'"),
        table.reserve(key("people"), routed(("api.example.com", "/v1/"))),
    ):
        pass
    with table.reserve(key("users"), routed(("api.example.com", "/v1"))):  # its own it may keep
        pass
    with table.reserve(key("admin"), routed(("api.example.com", "/v1/admin"))):  # a longer path is another address
        pass


def test_two_repositories_of_one_owner_cannot_have_one_function() -> None:
    table = Endpoints(POLICY)
    one, other = check_origin("a", "r1", "f"), check_origin("a", "r2", "f")
    table.put(key(one.name), one.annotations, "1")
    with pytest.raises(Conflict, match=f"{one.name}.*{other.name}"), table.reserve(key(other.name), other.annotations):
        pass


def test_a_host_of_another_owner_is_refused_whatever_the_path() -> None:
    table = Endpoints(POLICY)
    table.put(key("mine"), owned("alice", ("api.example.com", "/")), "1")
    with (
        pytest.raises(Conflict, match="another owner"),
        table.reserve(key("theirs"), owned("bob", ("api.example.com", "/login"))),
    ):
        pass


def test_two_deploys_at_once_do_not_both_get_it() -> None:
    table = Endpoints(POLICY)
    asked = routed(("api.example.com", "/v1"))
    with table.reserve(key("a"), asked), pytest.raises(Conflict), table.reserve(key("b"), asked):
        pass
    with pytest.raises(Conflict), table.reserve(key("b"), asked):  # the table has not heard of it yet
        pass
    table.put(key("a"), asked, "1")
    with pytest.raises(Conflict), table.reserve(key("b"), asked):
        pass


def test_a_deploy_that_fails_leaves_what_it_asked_for() -> None:
    table = Endpoints(POLICY)
    asked = routed(("api.example.com", "/v1"))
    with pytest.raises(RuntimeError), table.reserve(key("a"), asked):
        raise RuntimeError
    with table.reserve(key("b"), asked):
        pass
