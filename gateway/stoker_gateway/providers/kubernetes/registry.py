"""Asks a registry which image a tag means now, so that all replicas of a revision are the same one.

The OCI distribution API: HEAD of the manifest, with the token that the registry's challenge asks for. HTTPS everywhere
but on loopback addresses and where the operator has said so. What is asked for is one small answer; images are
fetched by the nodes.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from stoker_gateway.providers.images.credentials import Login, login_for
from stoker_gateway.providers.images.reference import DOCKER_HUB, Reference, parse_reference
from stoker_gateway.providers.text import one_line
from stoker_sdk.errors import BadInput, StokerError, Unavailable

_ACCEPT: Final = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
_MAX_MANIFEST = 4 * 1024 * 1024
_MAX_TOKEN = 64 * 1024
_TIMEOUT: Final = ClientTimeout(total=8, sock_connect=3)
"""A deploy waits for this, and a wrong credential must be told within ten seconds."""


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class Registries:
    """Any registry by its name. `plain` are those that speak HTTP without TLS, `ca` further certificates to trust."""

    def __init__(self, *, plain: Iterable[str] = (), ca: Path | None = None) -> None:
        self._plain = frozenset(plain)
        self._ssl = ssl.create_default_context()
        if ca is not None:
            try:
                self._ssl.load_verify_locations(ca)
            except OSError as error:  # ssl.SSLError is one
                raise StokerError(f"registry CA {ca} cannot be read: {error}") from error

    async def pin(self, image: str, logins: Iterable[Mapping[str, Login]] = ()) -> str:
        """`REGISTRY/PATH@sha256:…` for the image as its registry has it now.

        Raises `BadInput` for an image that is not there or not ours to see, `Unavailable` when the registry cannot say.
        """
        reference = parse_reference(image)
        if reference.digest:
            return reference.pinned(reference.digest)
        login = login_for(reference, logins)
        async with ClientSession(timeout=_TIMEOUT, trust_env=True) as session:
            try:
                return reference.pinned(await _Inquiry(self, session, reference, login).digest())
            except (ClientError, OSError) as error:
                raise _unavailable(reference, error) from error

    def is_plain(self, reference: Reference) -> bool:
        return reference.is_loopback or reference.registry in self._plain

    def trust(self) -> ssl.SSLContext:
        return self._ssl


class _Inquiry:
    """One image, one question, and what its registry wants first."""

    def __init__(
        self, registries: Registries, session: ClientSession, reference: Reference, login: Login | None
    ) -> None:
        self._session = session
        self._reference = reference
        self._login = login
        self._plain = registries.is_plain(reference)
        self._ssl = registries.trust()
        host = "registry-1.docker.io" if reference.registry == DOCKER_HUB else reference.registry
        scheme = "http" if self._plain else "https"
        self._url = f"{scheme}://{host}/v2/{reference.path}/manifests/{reference.tag}"

    async def digest(self) -> str:
        headers = {"Accept": _ACCEPT}
        answer = await self._ask("HEAD", headers)
        if answer.status == 401:
            headers["Authorization"] = await self._authorization(answer.headers.get("WWW-Authenticate", ""))
            answer = await self._ask("HEAD", headers)
        self._check(answer)
        told = answer.headers.get("Docker-Content-Digest", "")
        return told if _DIGEST.fullmatch(told) else await self._computed(headers)

    async def _ask(self, method: str, headers: Mapping[str, str]) -> ClientResponse:
        async with self._session.request(method, self._url, headers=headers, ssl=self._ssl, max_redirects=3) as answer:
            return answer

    async def _computed(self, headers: Mapping[str, str]) -> str:
        """Not every registry says the digest: it is the hash of the manifest."""
        async with self._session.get(self._url, headers=headers, ssl=self._ssl, max_redirects=3) as answer:
            self._check(answer)
            manifest = await answer.content.read(_MAX_MANIFEST)
            if not answer.content.at_eof():
                raise self._puzzled("its manifest is longer than a manifest can be")
        return f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    def _check(self, answer: ClientResponse) -> None:
        reference, status = self._reference, answer.status
        if status == 200:
            return
        if status == 404:
            raise BadInput(
                f"image {reference.repository}:{reference.tag} does not exist in {reference.registry}: push it first"
            )
        if status in (401, 403):
            raise self._refused()
        if status == 429:
            raise Unavailable(f"registry {reference.registry} has counted too many requests (429): try again later")
        raise self._puzzled(f"it answered {status}")

    async def _authorization(self, challenge: str) -> str:
        """The header that the registry's challenge asks for."""
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            if self._login is None:
                raise self._refused()
            return self._login.header
        if kind.lower() != "bearer":
            raise self._puzzled("it asks for a kind of credentials that is not known here")
        return f"Bearer {await self._token(dict(_PARAMETER.findall(rest)))}"

    async def _token(self, challenge: Mapping[str, str]) -> str:
        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme != "https" and not self._plain:
            raise self._puzzled("it wants credentials to be sent without TLS")
        query = {"scope": f"repository:{self._reference.path}:pull"}
        if service := challenge.get("service"):
            query["service"] = service
        headers = {"Authorization": self._login.header} if self._login else {}
        async with self._session.get(realm, params=query, headers=headers, ssl=self._ssl, max_redirects=0) as answer:
            if answer.status in (400, 401, 403):
                raise self._refused()
            if answer.status != 200:
                raise self._puzzled(f"its token service answered {answer.status}")
            body = await answer.content.read(_MAX_TOKEN)
        try:
            given = msgspec.json.decode(body, type=_Token)
        except msgspec.DecodeError:
            raise self._puzzled("its token service sent what cannot be read") from None
        return given.token or given.access_token

    def _refused(self) -> BadInput:
        reference, login = self._reference, self._login
        if login is None:
            return BadInput(
                f"registry {reference.registry} shows {reference.path} to nobody without credentials: list a secret of "
                "the type kubernetes.io/dockerconfigjson in the function's secrets"
            )
        return BadInput(
            f"registry {reference.registry} refuses the credentials of {login.source} for {reference.path}: "
            "correct them"
        )

    def _puzzled(self, why: str) -> Unavailable:
        return Unavailable(f"registry {self._reference.registry} does not say what {self._reference.tag} is: {why}")


def _unavailable(reference: Reference, error: Exception) -> Unavailable:
    detail = "no answer in time" if isinstance(error, TimeoutError) else one_line(str(error)) or type(error).__name__
    return Unavailable(
        f"registry {reference.registry} cannot be asked which image {reference.path}:{reference.tag} is: {detail}"
    )
