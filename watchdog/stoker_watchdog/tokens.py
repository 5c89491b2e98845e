"""The check of function tokens, for `jwt_auth` (contract section 8.6).

Keys come from the issuer's discovery document when the replica starts, and again, at most every few seconds, when a
token names a key that is not known. Patterns must match the whole of `NAMESPACE:NAME`; only `*` has a meaning in them.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterable
from re import compile as compile_pattern
from re import escape
from time import monotonic
from typing import Any

import jwt

from stoker_watchdog.call import call_id
from stoker_watchdog.logs import LogStream
from stoker_watchdog.options import Options, OptionsError
from stoker_wire.server import IDLE, Exchange, Idle

_ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
}
"""By the type of the key: a key for signatures is never taken for a shared secret."""
_LEEWAY = 1.0
_FETCH_SECONDS = 5.0
_REFRESH_PAUSE = 5.0
_MAX_DOCUMENT = 1 << 20
_PLAIN = b"Content-Type: text/plain; charset=utf-8\r\nX-OpenFaaS-Internal: faas-middleware\r\n"
_UNAUTHORIZED = (
    _PLAIN + b"WWW-Authenticate: Bearer realm=IAM function invoke\r\nX-Stoker-Error: client; unauthorized\r\n"
)
_FORBIDDEN = _PLAIN + b"X-Stoker-Error: client; forbidden\r\n"


class Denied(Exception):
    """The token does not allow the call. `status` is 401 or 403."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class UnknownKey(Exception):
    """The token is signed with a key that has not been fetched yet."""


class TokenGuard:
    """Implements `front.Guard`."""

    def __init__(self, options: Options, log: LogStream) -> None:
        if not options.name or not options.namespace:
            raise OptionsError("jwt_auth needs OPENFAAS_NAME and OPENFAAS_NAMESPACE, which the platform sets")
        self._url = options.jwt_issuer_url
        self._debug = options.jwt_auth_debug
        self._log = log
        self._resource = f"{options.namespace}:{options.name}"
        self._issuer = ""
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = 0.0
        self._fetching: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Fetch issuer and keys. Blocks; raises `OptionsError`."""
        address = f"{self._url}/.well-known/openid-configuration"
        try:
            found = _fetch(address)
            self._issuer, address = str(found["issuer"]), str(found["jwks_uri"])
            self._keys = _usable_keys(_fetch(address)["keys"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else error
            raise OptionsError(f"jwt_auth: the issuer's keys cannot be had from {address}: {what}") from None
        finally:
            self._fetched = monotonic()

    def admit(self, exchange: Exchange, go_on: Callable[[Exchange], None]) -> None:
        begun = monotonic()
        token = _bearer(exchange)
        try:
            self._check(token)
        except UnknownKey:
            _Waiting(exchange, lambda: self._check_again(exchange, token, begun, go_on))
            self._refresh(exchange)
        except Denied as denied:
            self._deny(exchange, denied)
        else:
            _pass(exchange, begun, go_on)

    def _check_again(self, exchange: Exchange, token: str, begun: float, go_on: Callable[[Exchange], None]) -> None:
        try:
            self._check(token)
        except UnknownKey:
            self._deny(exchange, Denied(401, "the token is signed with a key that the issuer does not have"))
        except Denied as denied:
            self._deny(exchange, denied)
        else:
            _pass(exchange, begun, go_on)

    def _refresh(self, exchange: Exchange) -> None:
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._reload(), name="fetch the issuer's keys")
        waiting = exchange.owner
        assert isinstance(waiting, _Waiting)
        self._fetching.add_done_callback(waiting.go_on)

    async def _reload(self) -> None:
        try:
            if monotonic() - self._fetched > _REFRESH_PAUSE:
                await asyncio.to_thread(self.load)
        except OptionsError as error:
            self._log.lines("-", [str(error)])
        finally:
            self._fetching = None

    def _check(self, token: str) -> None:
        """Raises `Denied`, `UnknownKey`."""
        if not token:
            raise Denied(401, "a bearer token is needed")
        try:
            name = jwt.get_unverified_header(token).get("kid", "")
            key = self._keys.get(name)
            if key is None:
                raise UnknownKey(name)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=list(_ALGORITHMS[str(key.key_type)]),
                audience=self._issuer,
                issuer=self._issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Denied(401, f"the token is not valid: {error}") from None
        if not allows(claims.get("function"), self._resource):
            raise Denied(403, "insufficient permissions")

    def _deny(self, exchange: Exchange, denied: Denied) -> None:
        if self._debug:
            self._log.lines(call_id(exchange), [f"jwt_auth: {denied.status}: {denied}"])
        exchange.owner = IDLE
        exchange.respond(denied.status, _UNAUTHORIZED if denied.status == 401 else _FORBIDDEN, f"{denied}\n".encode())


class _Waiting(Idle):
    """Owner of an exchange until the keys have come. What comes of its body meanwhile waits in the socket."""

    def __init__(self, exchange: Exchange, go_on: Callable[[], None]) -> None:
        self._go_on: Callable[[], None] | None = go_on
        self._exchange = exchange
        self._early: list[bytes] = []
        self._ended = False
        exchange.owner = self
        if exchange.length:
            exchange.hold_body()

    def body(self, data: bytes) -> None:
        self._early.append(data)

    def body_end(self) -> None:
        self._ended = True

    def client_gone(self) -> None:
        self._go_on = None

    def go_on(self, _: object) -> None:
        """The keys are there, or cannot be had."""
        if self._go_on is None:
            return
        exchange = self._exchange
        self._go_on()
        if exchange.finished:
            return
        for data in self._early:
            exchange.owner.body(data)
        if self._ended:
            exchange.owner.body_end()
        exchange.owner.flush()
        if not self._ended and exchange.length and not exchange.started:
            exchange.release_body()


def _pass(exchange: Exchange, begun: float, go_on: Callable[[Exchange], None]) -> None:
    fields = [field for field in exchange.fields if field[0].lower() != b"x-auth-seconds"]
    exchange.fields = [*fields, (b"X-Auth-Seconds", b"%.6f" % (monotonic() - begun))]
    go_on(exchange)


def _bearer(exchange: Exchange) -> str:
    for name, value in exchange.fields:
        if name.lower() == b"authorization":
            scheme, _, token = value.partition(b" ")
            return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""
    return ""


def allows(claim: object, resource: str) -> bool:
    """Whether the claim `function` covers `NAMESPACE:NAME`: `permissions` must, `audience` may be absent."""
    if not isinstance(claim, dict):
        return False
    permissions, audience = claim.get("permissions"), claim.get("audience")
    return _matches(permissions, resource) and (not audience or _matches(audience, resource))


def _matches(patterns: object, resource: str) -> bool:
    if not isinstance(patterns, list):
        return False
    return any(isinstance(pattern, str) and _pattern(pattern).fullmatch(resource) for pattern in patterns)


def _pattern(text: str) -> Any:
    return compile_pattern(".*".join(escape(part) for part in text[:1000].split("*")))


def _usable_keys(found: Iterable[Any]) -> dict[str, jwt.PyJWK]:
    keys = {}
    for one in found:
        if isinstance(one, dict) and one.get("kty") in _ALGORITHMS and one.get("use", "sig") == "sig":
            try:
                keys[str(one.get("kid", ""))] = jwt.PyJWK.from_dict(one)
            except jwt.PyJWTError:
                continue  # of a kind that the library does not know: tokens signed with it are refused
    if not keys:
        raise ValueError("there is no RSA or EC key for signatures")
    return keys


def _fetch(url: str) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url[:100]!r} is no http address")
    with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:
        content = json.loads(answer.read(_MAX_DOCUMENT))
    if not isinstance(content, dict):
        raise TypeError("it is not a JSON object")
    return content
