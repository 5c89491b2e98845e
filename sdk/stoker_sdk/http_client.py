"""One gateway over HTTP: where urllib3's errors and the gateway's status codes become our errors.

Nothing else in the sdk knows urllib3. Calls are not repeated here: the control API is not asked to be
idempotent, and a person who sees the error decides.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    LocationParseError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from stoker_sdk import __version__
from stoker_sdk.errors import (
    BadInput,
    Conflict,
    NotFound,
    StokerError,
    Unauthorized,
    Unavailable,
    Unprocessable,
)

CONNECT_TIMEOUT = 5.0
"""Seconds until a connection must stand: long enough for a far gateway, short enough for a person who waits.
"""

_BODY_SHOWN = 64 << 10
_SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization")
_MASK = "(not shown)"
_ERRORS: dict[int, type[StokerError]] = {
    400: BadInput,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: BadInput,
    422: Unprocessable,
    502: Unavailable,
    503: Unavailable,
}

Body = bytes | IO[bytes] | Iterator[bytes] | None


@dataclass(frozen=True)
class Trust:
    """Whose certificates are accepted: the system's, those of `ca` too, or any at all when not `verify`."""

    ca: Path | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """Raises `BadInput` when the CA file cannot be used."""
        context = ssl.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.ca is not None:
            self._load(context, self.ca)
        return context

    @staticmethod
    def _load(context: ssl.SSLContext, ca: Path) -> None:
        try:
            context.load_verify_locations(cafile=ca)
        except ssl.SSLError:
            raise BadInput(f"{ca} holds no CA certificate in PEM form") from None
        except OSError as error:
            raise BadInput(f"the CA file {ca} cannot be read: {error.strerror}") from None


class HttpClient:
    """Requests to one gateway, with its credentials where they are asked for.

    `gateway` is a normalized address, `authorization` the header's value or an empty string, `timeout` the
    seconds between two reads of an answer. `trace` gets lines that show what goes out and comes back, without
    what is secret.
    """

    def __init__(
        self,
        gateway: str,
        authorization: str = "",
        trust: Trust = Trust(),
        timeout: float = 60,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.gateway = gateway
        self._trace = trace
        self.timeout = timeout
        self._authorization = authorization
        if not trust.verify:
            urllib3.disable_warnings(InsecureRequestWarning)  # who asks for this has been warned
        context = trust.context() if gateway.startswith("https:") else None
        self._pool = urllib3.PoolManager(retries=False, ssl_context=context)

    def close(self) -> None:
        self._pool.clear()

    def call(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """A management call with a JSON body, read whole. Raises the error that the status stands for."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        with self.stream(method, path, query=query, headers=headers, body=body) as response:
            raise_for_status(response, self.gateway)
            return Answer(response.status, dict(response.headers), self._read(response))

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        timeout: float | None = -1,
        authorized: bool = True,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer before its body is read. `timeout` None waits for ever between reads, -1 is the client's
        own.
        """
        response = self._send(method, path, query, self._headers(headers, authorized), body, timeout)
        try:
            with self._translated():
                yield response
        finally:
            response.close()

    def chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """The body as it comes. Raises `Unavailable` when it breaks off."""
        with self._translated():
            if response.chunked:
                # `stream` would gather chunks up to its size, and a line that was sent must be seen at once.
                yield from response.read_chunked()
            else:
                while piece := response.read1(64 << 10):
                    yield piece

    def lines(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """The body's lines as they come, empty ones left out."""
        rest = b""
        for chunk in self.chunks(response):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line for line in whole if line.strip())
        if rest.strip():
            yield rest

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: dict[str, str],
        body: Body,
        timeout: float | None,
    ) -> urllib3.BaseHTTPResponse:
        read = self.timeout if timeout == -1 else timeout
        url = self.gateway + path + _query_string(query)
        if self._trace:
            self._trace(shown_request(method, url, headers, body))
        with self._translated():
            response = self._pool.urlopen(
                method,
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=read),
                preload_content=False,
                decode_content=False,
                redirect=False,
            )
        if self._trace:
            self._trace(
                "\n".join([f"< {response.status}", *(f"< {key}: {text}" for key, text in response.headers.items())])
            )
        return response

    def _headers(self, extra: Mapping[str, str] | None, authorized: bool) -> dict[str, str]:
        headers = {"User-Agent": f"stoker/{__version__}", **(extra or {})}
        if authorized and self._authorization:
            headers["Authorization"] = self._authorization
        return headers

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        with self._translated():
            return response.read()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except HTTPError as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: HTTPError) -> StokerError:
        if isinstance(error, SSLError):
            return Unavailable(
                f"the certificate of {self.gateway} is not trusted ({_certificate_reason(error)}): "
                "name its CA with --ca, on the server's machine `stoker serve --print-ca` prints it"
            )
        if isinstance(error, NewConnectionError | ConnectTimeoutError):
            return Unavailable(
                f"cannot connect to {self.gateway}. Is Stoker running? "
                "Start it with `stoker serve`, or name another gateway with --gateway"
            )
        if isinstance(error, LocationParseError):
            return BadInput(f"gateway {self.gateway!r} is not an address: write it as https://HOST:PORT")
        if isinstance(error, ReadTimeoutError):
            return Unavailable(f"{self.gateway} did not answer in {self.timeout:g} seconds")
        return Unavailable(f"the connection to {self.gateway} broke off: {_first_line(error)}")


@dataclass(frozen=True)
class Answer:
    """A whole answer: status, headers (names as sent), body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header, its name in any case, or an empty string."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), "")


def raise_for_status(response: urllib3.BaseHTTPResponse, gateway: str) -> None:
    """Raise the error that a status of 300 and above stands for, with the body's text as its message."""
    if response.status < 300:
        return
    body = response.read(_BODY_SHOWN).decode("utf-8", "replace").strip()
    raise _error(response.status, body, gateway)


def _error(status: int, body: str, gateway: str) -> StokerError:
    if status == 401:
        return Unauthorized(f"{gateway} does not accept the credentials: run `stoker login --gateway {gateway}`")
    kind = _ERRORS.get(status, StokerError)
    if body and kind is not StokerError:
        return kind(body)
    return kind(f"server returned unexpected status code: {status} - {body or _phrase(status)}")


def shown_request(method: str, url: str, headers: Mapping[str, str], body: Body) -> str:
    """A request as a person may see it: no credentials, no value of a secret, no body that is not JSON."""
    lines = [f"> {method} {url}"]
    lines += [f"> {key}: {_MASK if key.lower() in _SECRET_HEADERS else text}" for key, text in headers.items()]
    if isinstance(body, bytes) and body and headers.get("Content-Type") == "application/json":
        hidden = "/system/secrets" in url
        lines.append("> " + (f"({len(body)} bytes with a secret)" if hidden else body.decode("utf-8", "replace")))
    return "\n".join(lines)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no message"


def _query_string(query: Mapping[str, str] | None) -> str:
    from urllib.parse import urlencode

    present = {key: value for key, value in (query or {}).items() if value != ""}
    return f"?{urlencode(present)}" if present else ""


def _certificate_reason(error: SSLError) -> str:
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "verify_message", "") or _first_line(inner))


def _first_line(error: object) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:200]
