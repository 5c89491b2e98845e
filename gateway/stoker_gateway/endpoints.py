"""Public addresses: which a function asks for, and which it has. Pure, so that every gateway comes to the same answer.

A function with an owner is at `https://OWNER.DOMAIN/FUNCTION/…`; `routes` ask for further hosts and paths. Of two that
ask for one address the older has it, and a host that is nobody's by its name belongs to the owner of the oldest
function there. Deploys are refused before it comes to that (`reserve`); it does where two gateways take a deploy each
at the same moment, and where functions are written past the API.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from stoker_gateway.routes import ROUTES, Endpoint, is_private
from stoker_sdk.addresses import MAX_ROUTES, AskedRoute, check_route
from stoker_sdk.errors import BadInput, Conflict
from stoker_sdk.names import key_from_route
from stoker_sdk.origin import FUNCTION, OWNER, REPOSITORY, origin_of
from stoker_sdk.runs import ACCOUNT

HTTPS_PORT: Final = 443
_CLUSTER: Final = (".svc", ".cluster.local", ".internal", ".localhost")
_ADDRESS = re.compile(r"[0-9.]+")


@dataclass(frozen=True)
class HostPolicy:
    """Which hosts there are. `domain` is empty where owners have none; `port` is the one that clients use.

    `own_hosts` are the gateway's, which no function gets; `route_hosts` are the hosts (`*.` for one label) that
    `routes` may name, as `HOST` for everybody and `OWNER=HOST` for one. When it is empty, who has the platform's
    password may name any, and who pushes to a forge none: the first who asked would have it.
    """

    domain: str = ""
    port: int = HTTPS_PORT
    own_hosts: tuple[str, ...] = ()
    route_hosts: tuple[str, ...] = ()

    def is_ours(self, host: str) -> bool:
        """Whether the name alone says whose it is: a host under the domain."""
        return bool(self.domain) and host.endswith(f".{self.domain}")

    def url(self, endpoint: Endpoint) -> str:
        port = "" if self.port == HTTPS_PORT else f":{self.port}"
        return f"https://{endpoint.host}{port}{endpoint.path or '/'}"


def endpoints_of(key: str, annotations: Mapping[str, str], policy: HostPolicy) -> list[Endpoint]:
    """The addresses that a function (`NAME.NAMESPACE`) asks for, its own first. Raises `BadInput`."""
    routes = _asked_routes(annotations)
    if is_private(annotations):
        if routes:
            raise BadInput("a private function has no public address: leave out `routes`, or `visibility: private`")
        return []
    label, path = _own_place(key, annotations)
    host = f"{label}.{policy.domain}" if label and policy.domain else ""
    if host in policy.own_hosts:
        raise BadInput(f"owner {annotations[OWNER][:80]!r} cannot have the host {host}: it is the gateway's own")
    found = [Endpoint(host, path, strips=True)] if host else []
    # Without a domain nobody has a host of his own: what is below it is for another platform, and does no harm here.
    asker = _Asker(annotations.get(OWNER, "").lower(), ACCOUNT in annotations)
    found += [_endpoint(route, host, policy, asker) for route in routes if route.host or policy.domain]
    places = [(endpoint.host, endpoint.path) for endpoint in found]
    for endpoint, place in zip(found, places, strict=True):
        if places.count(place) > 1:
            raise BadInput(f"the function asks for {endpoint} twice: leave one out")
    return found


class _Asker(NamedTuple):
    """Who asks for a host: the owner, and whether only a forge has vouched for that one."""

    owner: str
    is_by_forge: bool


def _own_place(key: str, annotations: Mapping[str, str]) -> tuple[str, str]:
    """The label under the domain and the path; no label without an owner."""
    # A function that was deployed by hand for an owner has no repository; its own name stands in the path.
    origin = origin_of({REPOSITORY: "-", FUNCTION: key_from_route(key).name} | dict(annotations))
    return (origin.host_label, origin.path) if origin else ("", "")


def _asked_routes(annotations: Mapping[str, str]) -> list[AskedRoute]:
    if not (text := annotations.get(ROUTES, "")):
        return []
    try:
        routes = msgspec.json.decode(text, type=list[AskedRoute])
    except msgspec.DecodeError as error:
        raise BadInput(f'{ROUTES}: write a JSON list of {{"host": …, "path": …}}: {error}') from None
    if len(routes) > MAX_ROUTES:
        raise BadInput(f"{ROUTES}: has {len(routes)} entries, and {MAX_ROUTES} are the most")
    for route in routes:
        check_route(route)
    return routes


def _endpoint(route: AskedRoute, own_host: str, policy: HostPolicy, asker: _Asker) -> Endpoint:
    path = route.path.rstrip("/")
    if not route.host and not own_host:
        raise BadInput(f"route {route.path[:80]!r} names no host, and the function has none of its own: name one")
    if route.host:
        _check_host(route.host, own_host, policy, asker)
    return Endpoint(route.host or own_host, path, list(route.methods))


def _check_host(host: str, own_host: str, policy: HostPolicy, asker: _Asker) -> None:
    """A host that `routes` name must not be one by which the gateway, its owners or the cluster are called."""
    name = host.removeprefix("*.")
    if policy.domain and (name == policy.domain or policy.is_ours(name) or _covers(host, policy.domain)):
        if host != own_host:
            raise BadInput(f"host {host!r} is the platform's: under {policy.domain} a function has only its own host")
        return
    if "." not in name or _ADDRESS.fullmatch(name) or f".{name}".endswith(_CLUSTER):
        raise BadInput(f"host {host!r} cannot be a public one: name one that clients find by DNS")
    if any(own == host or _covers(host, own) for own in policy.own_hosts):
        raise BadInput(f"host {host!r} is the gateway's own: name another")
    if not _may_name(host, policy, asker):
        whom = f"{asker.owner}={host}" if asker.owner else host
        raise BadInput(
            f"host {host!r} is not among those that these routes may name: whoever runs the platform gives it by "
            f"`stoker serve --route-host {whom}`"
        )


def _may_name(host: str, policy: HostPolicy, asker: _Asker) -> bool:
    """What is given to single owners is nobody else's, also not by a wildcard, but where it is given itself."""
    given = [(owner.lower(), one) for owner, _, one in (each.rpartition("=") for each in policy.route_hosts)]
    if any(owner not in ("", asker.owner) for owner, one in given if _covers(host, one)):
        return False
    exact = {owner for owner, one in given if one == host}
    wider = {owner for owner, one in given if _covers(one, host)}
    if owners := (exact - {""}) or (wider - {""}):
        return asker.owner in owners
    return "" in exact | wider or not (given or asker.is_by_forge)


def _covers(pattern: str, host: str) -> bool:
    return pattern.startswith("*.") and host.partition(".")[2] == pattern[2:]


class _Asked(NamedTuple):
    """What a function asks for. Ordered by age."""

    created_at: str
    key: str
    owner: str
    endpoints: tuple[Endpoint, ...]
    trouble: str = ""


class Endpoints:
    """All functions' addresses: `put` and `remove` follow the route table, `reserve` stands before a deploy."""

    def __init__(self, policy: HostPolicy) -> None:
        self.policy = policy
        self._asked: dict[str, _Asked] = {}
        self._claims: dict[str, dict[str, list[_Asked]]] = {}  # by host, by path; the oldest first
        self._reserved: dict[str, _Asked] = {}

    # The table

    def put(self, key: str, annotations: Mapping[str, str], created_at: str) -> set[str]:
        """A function is there, or has changed; returns whose addresses are other ones now."""
        self._reserved.pop(key, None)
        try:
            endpoints, trouble = tuple(endpoints_of(key, annotations, self.policy)), ""
        except BadInput as error:
            endpoints, trouble = (), str(error)
        asked = _Asked(created_at, key, annotations.get(OWNER, "").lower(), endpoints, trouble)
        if asked == self._asked.get(key):
            return set()
        return self._replace(key, asked)

    def remove(self, key: str) -> set[str]:
        self._reserved.pop(key, None)
        return self._replace(key, None)

    def held(self, key: str) -> list[Endpoint]:
        """The addresses at which this function is called."""
        asked = self._asked.get(key)
        return [each for each in asked.endpoints if self._holder(each.host, each.path) == key] if asked else []

    def urls(self, key: str) -> list[str]:
        return [self.policy.url(endpoint) for endpoint in self.held(key)]

    def refused(self, key: str) -> list[str]:
        """Why it does not have what it asks for, a line each."""
        asked = self._asked.get(key)
        if asked is None:
            return []
        if asked.trouble:
            return [asked.trouble]
        held = self.held(key)
        return [
            f"{endpoint} belongs to {self._holder(endpoint.host, endpoint.path) or 'a function of another owner'}"
            for endpoint in asked.endpoints
            if endpoint not in held
        ]

    def _replace(self, key: str, asked: _Asked | None) -> set[str]:
        before = self._asked.get(key)
        endpoints = [*(before.endpoints if before else ()), *(asked.endpoints if asked else ())]
        places = {place for endpoint in endpoints for place in self._touched(endpoint)}
        holders = {place: self._holder(*place) for place in places}
        for endpoint in before.endpoints if before else ():
            self._drop(endpoint, key)
        self._asked.pop(key, None)
        if asked is not None:
            self._asked[key] = asked
            for endpoint in asked.endpoints:
                claims = self._claims.setdefault(endpoint.host, {}).setdefault(endpoint.path, [])
                claims.append(asked)
                claims.sort()
        changed = {key}
        for place in places | {place for endpoint in endpoints for place in self._touched(endpoint)}:
            now, then = self._holder(*place), holders.get(place)
            if now != then:
                changed.update(holder for holder in (now, then) if holder is not None)
        return changed

    def _touched(self, endpoint: Endpoint) -> list[tuple[str, str]]:
        """The places whose holder may be another one when this is claimed or left."""
        paths = [endpoint.path]
        if not self.policy.is_ours(endpoint.host):
            paths += self._claims.get(endpoint.host, ())
        return [(endpoint.host, path) for path in paths]

    def _drop(self, endpoint: Endpoint, key: str) -> None:
        paths = self._claims[endpoint.host]
        paths[endpoint.path] = [claim for claim in paths[endpoint.path] if claim.key != key]
        if not paths[endpoint.path]:
            del paths[endpoint.path]
        if not paths:
            del self._claims[endpoint.host]

    def _holder(self, host: str, path: str) -> str | None:
        paths = self._claims.get(host, {})
        claims = paths.get(path, ())
        if claims and not self.policy.is_ours(host):
            owner = min(first[0] for first in paths.values()).owner
            claims = [claim for claim in claims if claim.owner == owner]
        return claims[0].key if claims else None

    # Before a deploy

    @contextmanager
    def reserve(self, key: str, annotations: Mapping[str, str] | None) -> Iterator[None]:
        """Hold what a deploy asks for until the table has it. Raises `BadInput`, and `Conflict` that names both."""
        texts = annotations or {}
        endpoints = tuple(endpoints_of(key, texts, self.policy))
        owner = texts.get(OWNER, "").lower()
        for endpoint in endpoints:
            self._check_free(key, owner, endpoint)
        before = self._reserved.get(key)
        self._reserved[key] = _Asked("", key, owner, endpoints)
        try:
            yield
        except BaseException:
            self._reserved.pop(key, None)
            if before is not None:
                self._reserved[key] = before
            raise

    def _check_free(self, key: str, owner: str, endpoint: Endpoint) -> None:
        shared = self.policy.is_ours(endpoint.host)
        for other in self._others(key, endpoint.host):
            for theirs in other.endpoints:
                if theirs.host == endpoint.host and theirs.path == endpoint.path:
                    raise Conflict(
                        f"{endpoint} is the address of function {_name(other.key)} already, and function {_name(key)} "
                        "asks for it too: give one of them another path, or remove one"
                    )
                if theirs.host == endpoint.host and not shared and other.owner != owner:
                    raise Conflict(
                        f"host {endpoint.host} has function {_name(other.key)} of another owner, and function "
                        f"{_name(key)} asks for {endpoint}: use a host of your own"
                    )

    def _others(self, key: str, host: str) -> list[_Asked]:
        claims = {claim.key: claim for claims in self._claims.get(host, {}).values() for claim in claims}
        return [other for other in (claims | self._reserved).values() if other.key != key]


def _name(key: str) -> str:
    """The function as its users know it."""
    name = key_from_route(key)
    return f"{name.name!r} (namespace {name.namespace})"
