"""Mode `static`: files below one folder, and nothing else (contract section 8.2).

A path that leads out of the folder, by `..` or by a link, is 404 like one that is not there. A folder is its
`index.html`; there are no listings. Files are validated by ETag and time, and can be had in parts.
"""

from __future__ import annotations

import mimetypes
import os
import stat
from collections.abc import Callable
from email.utils import formatdate, parsedate_to_datetime
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from stoker_watchdog.call import Call
from stoker_watchdog.options import Options, OptionsError
from stoker_watchdog.pump import Pump
from stoker_wire.server import Exchange

if TYPE_CHECKING:
    from stoker_watchdog.front import Front

_PLAIN = b"Content-Type: text/plain; charset=utf-8\r\n"
_NOT_A_RANGE = (0, -1)


class StaticRunner:
    """Implements `Runner`. `root` is the folder without links in its path."""

    root = b""

    has_health = True

    def __init__(self, options: Options) -> None:
        self._path = options.static_path

    async def open(self) -> None:
        """Raises `OptionsError`."""
        self.root = _real(self._path)
        if not _is_folder(self.root):
            raise OptionsError(f"static_path is {self._path[:200]!r}, which is no folder: correct it")

    def watch(self, end: Callable[[str], None]) -> None: ...

    def call(self, front: Front, exchange: Exchange) -> StaticCall:
        return StaticCall(self, front, exchange)

    async def health(self) -> str:
        return "" if _is_folder(self.root) else f"the folder {self._path!r} has gone"

    async def close(self) -> None: ...


class StaticCall(Call):
    """One request for a file."""

    __slots__ = ("_file", "_pump", "_runner")

    def __init__(self, runner: StaticRunner, front: Front, exchange: Exchange) -> None:
        super().__init__(front, exchange)
        self._runner = runner
        self._file: IO[bytes] | None = None
        self._pump: Pump | None = None

    def begin(self) -> None:
        self._front.admit(self)

    def run(self) -> None:
        self.runs = True
        exchange = self._exchange
        if exchange.method not in (b"GET", b"HEAD"):
            self._refuse(405, b"method-not-allowed", b"only GET and HEAD are allowed here\n", b"Allow: GET, HEAD\r\n")
            return
        path = exchange.target.partition(b"?")[0]
        found = locate(self._runner.root, path)
        if found is None:
            self._refuse(404, b"no-such-file", b"there is no such file\n")
        elif os.path.isdir(found):  # the index of a folder: relative links need the slash
            location = b"./" + path.rpartition(b"/")[2] + b"/"
            self._respond(301, b"Location: %b\r\n" % location)
        else:
            self._open(found)

    def _open(self, path: bytes) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            self._refuse(404, b"no-such-file", b"there is no such file\n")
            return
        self._file = os.fdopen(descriptor, "rb")
        self._answer(path, os.fstat(descriptor))

    def _answer(self, path: bytes, about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            self._refuse(404, b"no-such-file", b"there is no such file\n")
            return
        etag = b'"%x-%x"' % (about.st_mtime_ns, about.st_size)
        modified = formatdate(int(about.st_mtime), usegmt=True).encode()
        block = b"ETag: %b\r\nLast-Modified: %b\r\nAccept-Ranges: bytes\r\n" % (etag, modified)
        if self._is_known(etag, int(about.st_mtime)):
            self._respond(304, block)
            return
        start, end = self._range(about.st_size, etag, modified)
        if (start, end) == _NOT_A_RANGE and about.st_size:
            self._respond(416, b"Content-Range: bytes */%d\r\n" % about.st_size)
            return
        status = 200
        block += _type_line(path)
        if end - start < about.st_size:
            status = 206
            block += b"Content-Range: bytes %d-%d/%d\r\n" % (start, end - 1, about.st_size)
        self._send(status, block, start, max(0, end - start))

    def _is_known(self, etag: bytes, mtime: int) -> bool:
        known = self._field(b"if-none-match")
        if known is not None:
            tags = [tag.strip().removeprefix(b"W/") for tag in known.split(b",")]
            return etag in tags or b"*" in tags
        since = _date(self._field(b"if-modified-since"))
        return since is not None and mtime <= since

    def _range(self, size: int, etag: bytes, modified: bytes) -> tuple[int, int]:
        """The first byte and the one behind the last."""
        condition = self._field(b"if-range")
        wanted = self._field(b"range")
        if wanted is None or (condition is not None and condition not in (etag, modified)):
            return 0, size
        return byte_range(wanted, size)

    def _field(self, name: bytes) -> bytes | None:
        return next((value for known, value in self._exchange.fields if known.lower() == name), None)

    def _send(self, status: int, block: bytes, start: int, size: int) -> None:
        exchange, file = self._exchange, self._file
        exchange.start(status, block, size)
        if exchange.method == b"HEAD" or file is None:
            self._sent(True)
            return
        file.seek(start)
        self._pump = Pump(self._front.loop, file, size, self._write, self._sent)
        self._pump.run()

    def _write(self, data: bytes) -> None:
        self._exchange.write(data)
        self._exchange.flush()

    def _sent(self, whole: bool) -> None:
        exchange = self._exchange
        if whole:
            exchange.finish()
        else:
            exchange.abort()  # the file has become shorter meanwhile
        self._front.count(exchange, exchange.status, self.begun)
        self.finish()

    def _refuse(self, status: int, code: bytes, text: bytes, more: bytes = b"") -> None:
        self._respond(status, b"%bX-Stoker-Error: client; %b\r\n%b" % (_PLAIN, code, more), text)

    def _respond(self, status: int, block: bytes, text: bytes = b"") -> None:
        self._exchange.respond(status, block, text)
        self._front.count(self._exchange, status, self.begun, len(text))
        self.finish()

    def hold(self) -> None:
        if self._pump is not None:
            self._pump.hold()

    def release(self) -> None:
        if self._pump is not None:
            self._pump.release()

    def stop(self) -> None:
        if self._pump is not None:
            self._pump.stop()
            self.finish()

    def release_input(self) -> None:
        if self._file is not None:
            self._file.close()


def _real(path: str) -> bytes:
    return os.fsencode(os.path.realpath(path))


def _is_folder(path: bytes) -> bool:
    return os.path.isdir(path)


def locate(root: bytes, path: bytes) -> bytes | None:
    """The file for a request's path, a folder when the path lacks its slash, or None for what is not to be had."""
    decoded = unquote_to_bytes(path)
    if b"\0" in decoded or b".." in decoded.split(b"/"):
        return None
    wanted = root + b"/" + decoded.strip(b"/")
    try:
        found = os.path.realpath(wanted)
        if found != root and not found.startswith(root.rstrip(b"/") + b"/"):
            return None
        if os.path.isdir(found):
            if not decoded.endswith(b"/"):
                return found
            return locate(root, path + b"index.html") if os.path.isfile(found + b"/index.html") else None
        return found if os.path.isfile(found) and not decoded.endswith(b"/") else None
    except OSError:
        return None


def byte_range(wanted: bytes, size: int) -> tuple[int, int]:
    """One range (RFC 9110, section 14.1.2). What is no range of bytes is the whole file; (0, -1) cannot be had."""
    unit, _, text = wanted.partition(b"=")
    first, dash, last = text.strip().partition(b"-")
    if unit.strip().lower() != b"bytes" or not dash or len(text) > 40 or not _is_range(first, last):
        return 0, size
    if not first:
        return (max(0, size - int(last)), size) if int(last) else _NOT_A_RANGE
    start, end = int(first), int(last) + 1 if last else size
    if end <= start and last:
        return 0, size
    return (start, min(end, size)) if start < size else _NOT_A_RANGE


def _is_range(first: bytes, last: bytes) -> bool:
    return bool(first or last) and all(not part or part.isdigit() for part in (first, last))


def _date(value: bytes | None) -> float | None:
    try:
        return None if value is None else parsedate_to_datetime(value.decode("latin-1")).timestamp()
    except (ValueError, OverflowError):
        return None


def _type_line(path: bytes) -> bytes:
    kind, coding = mimetypes.guess_type(os.fsdecode(path))
    kind = "application/octet-stream" if kind is None or coding else kind
    charset = "; charset=utf-8" if kind.startswith("text/") or kind == "application/javascript" else ""
    return f"Content-Type: {kind}{charset}\r\nX-Content-Type-Options: nosniff\r\n".encode("latin-1", "replace")
