"""Sessions in cookies: encrypted and signed, so that nothing about them is kept here, but for those that were ended.

The key is made from the platform's password. So all gateways of one platform take the same cookies, and whoever changes
the password ends all sessions. The cookie has the path of the pages: functions of the same host never get it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from aiohttp import web
from cryptography.fernet import Fernet, InvalidToken

from stoker_gateway.pages.access import Session
from stoker_sdk.basic_auth import same_text
from stoker_sdk.files import write_whole

T = TypeVar("T", bound=msgspec.Struct)

SECONDS: Final = 12 * 3600
PATH: Final = "/ui"
_NAME: Final = "stoker-session"
_SECURE_NAME: Final = "__Secure-stoker-session"
_SALT: Final = b"stoker pages, sessions"
_MAX_COOKIE: Final = 3500
"""Characters; browsers keep 4096 with name and attributes."""


class Sessions:
    """`password` is the platform's; `ended_file` remembers who signed out, until their session had ended anyway."""

    def __init__(self, password: str, ended_file: Path) -> None:
        key = hashlib.scrypt(password.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=64)
        self._fernet = Fernet(base64.urlsafe_b64encode(key[:32]))
        self._token_key = key[32:]
        self._ended_file = ended_file
        self._ended: dict[str, int] = _read(ended_file)

    def begin(self, user: str, *, is_admin: bool = False, owners: Mapping[str, int] | None = None) -> str:
        """The cookie's value of a new session. Of very many owners, the last in the alphabet are left out."""
        session = Session(secrets.token_urlsafe(16), user, int(time.time()) + SECONDS, is_admin, dict(owners or {}))
        while len(text := self.seal(session)) > _MAX_COOKIE:
            session = msgspec.structs.replace(session, owners=dict(list(session.owners.items())[:-10]))
        return text

    def find(self, request: web.Request) -> Session | None:
        """The session of a request; None without one, or when it is over."""
        text = request.cookies.get(_SECURE_NAME if is_encrypted(request) else _NAME, "")
        session = self.unseal(text, Session, SECONDS)
        return session if session and session.until > time.time() and session.id not in self._ended else None

    def seal(self, value: msgspec.Struct) -> str:
        """A text that only this platform can read or make. Its struct has a tag, so that it stands for nothing else."""
        return self._fernet.encrypt(msgspec.json.encode(value)).decode()

    def unseal(self, text: str, kind: type[T], seconds: int) -> T | None:
        """None for what is none of ours, or older."""
        try:
            return msgspec.json.decode(self._fernet.decrypt(text, ttl=seconds), type=kind)
        except (InvalidToken, msgspec.MsgspecError):
            return None

    def end(self, session: Session) -> None:
        """From now on the cookie is worth nothing, whoever has it."""
        now = int(time.time())
        self._ended = {id: until for id, until in self._ended.items() if until > now} | {session.id: session.until}
        write_whole(self._ended_file, msgspec.json.encode(self._ended))

    def token(self, purpose: str) -> str:
        """What a form must send along to be taken as one of ours: only this platform can make it."""
        return hmac.new(self._token_key, purpose.encode(), hashlib.sha256).hexdigest()

    def is_token(self, text: str, purpose: str) -> bool:
        return same_text(text, self.token(purpose))


def is_encrypted(request: web.Request) -> bool:
    """Whether the browser speaks HTTPS, with us or with who is in front of us."""
    return request.headers.get("X-Forwarded-Proto") == "https"


def set_session(request: web.Request, response: web.StreamResponse, text: str) -> None:
    set_cookie(request, response, _SECURE_NAME if is_encrypted(request) else _NAME, text, SECONDS)


def drop_session(request: web.Request, response: web.StreamResponse) -> None:
    name = _SECURE_NAME if is_encrypted(request) else _NAME
    response.del_cookie(name, path=PATH, secure=is_encrypted(request), httponly=True, samesite="Lax")


def set_cookie(request: web.Request, response: web.StreamResponse, name: str, text: str, seconds: int) -> None:
    """For the pages alone. Lax, because a browser comes back from GitHub by a link."""
    secure = is_encrypted(request)
    response.set_cookie(name, text, max_age=seconds, path=PATH, secure=secure, httponly=True, samesite="Lax")


def _read(file: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.MsgspecError):
        return {}
