"""The namespaces of a platform: which there are, on disk (`FOLDER/NAME.json`) and in memory.

The default namespace is always there. Deleting one takes everything in it along: the file is marked first, so that a
platform that is killed in between finishes the work at its next start, and nobody finds half of it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError
from stoker_sdk.files import write_whole
from stoker_sdk.messages import FunctionNamespace
from stoker_sdk.names import DEFAULT_NAMESPACE, check_function_namespace, check_label, check_qualified_key

log = logging.getLogger("stoker.namespaces")

MARK = "openfaas"
"""The label or annotation that makes a namespace one for functions (contract section 2.7)."""

Emptier = Callable[[str], Awaitable[None]]
"""Removes all that is in a namespace, and does no harm when it is called again."""


class _Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a file holds."""

    namespace: FunctionNamespace
    deleting: bool = False


class NamespaceStore:
    """Creates, changes, deletes and tells namespaces. A change is on disk before its method returns."""

    def __init__(self, folder: Path, set_aside: Path) -> None:
        self._folder = folder
        self._set_aside = set_aside
        self._stored = {DEFAULT_NAMESPACE: _Stored(_marked(DEFAULT_NAMESPACE))} | self._load()
        self._writers: Counter[str] = Counter()
        self._written = asyncio.Condition()
        self._changing = asyncio.Lock()

    def names(self) -> list[str]:
        """Those that can be used, in order; one that is being deleted cannot."""
        return sorted(name for name, stored in self._stored.items() if not stored.deleting)

    def get(self, name: str) -> FunctionNamespace:
        """Raises `NotFound`."""
        stored = self._stored.get(name)
        if stored is None or stored.deleting:
            raise NotFound(f"namespace {name[:80]!r} does not exist: there is {', '.join(self.names())}")
        return stored.namespace

    def existing(self, name: str) -> str:
        """The name, that of the default namespace when empty. Raises `BadInput` when there is none such."""
        try:
            return self.get(name or DEFAULT_NAMESPACE).name
        except NotFound as error:
            raise BadInput(str(error)) from None

    @asynccontextmanager
    async def written_in(self, name: str) -> AsyncIterator[None]:
        """While something is stored in the namespace: it is not deleted meanwhile. Raises `BadInput`, `existing`."""
        self.existing(name)
        self._writers[name] += 1
        try:
            yield
        finally:
            self._writers[name] -= 1
            async with self._written:
                self._written.notify_all()

    async def create(self, namespace: FunctionNamespace) -> None:
        """Raises `Conflict` when it exists, `BadInput` for a name or a label that is not allowed."""
        _check(namespace)
        async with self._changing:
            known = self._stored.get(namespace.name)
            if known is not None and known.deleting:
                raise Conflict(f"namespace {namespace.name!r} is being deleted: delete it again, or try again later")
            if known is not None:
                raise Conflict(f"namespace {namespace.name!r} exists already: update it instead")
            await self._save(_Stored(namespace))

    async def ensure(self, name: str) -> None:
        """Make it, unless it is there already."""
        if name not in self.names():
            await self.create(_marked(name))

    async def update(self, namespace: FunctionNamespace) -> None:
        """Labels and annotations are now these. Raises `NotFound`, `BadInput`."""
        async with self._changing:
            self.get(namespace.name)
            _check(namespace)
            await self._save(_Stored(namespace))

    async def delete(self, name: str, empty: Emptier) -> None:
        """Empty it, then forget it. Raises `NotFound`, and `BadInput` for the default namespace."""
        if name == DEFAULT_NAMESPACE:
            raise BadInput(f"namespace {name!r} is the default one, which clients count on: it cannot be deleted")
        async with self._changing:
            if name not in self._stored:
                self.get(name)
            await self._save(_Stored(self._stored[name].namespace, deleting=True))
            async with self._written:
                await self._written.wait_for(lambda: not self._writers[name])
            await self._finish(name, empty)

    async def finish_deletions(self, empty: Emptier) -> None:
        """What an earlier process began to delete goes now; what cannot go is reported, and tried again next time."""
        async with self._changing:
            for name in [name for name, stored in self._stored.items() if stored.deleting]:
                try:
                    await self._finish(name, empty)
                except (StokerError, OSError) as error:
                    log.error("namespace %s could not be deleted: %s", name, error)

    async def _finish(self, name: str, empty: Emptier) -> None:
        await empty(name)
        await asyncio.to_thread(self._path(name).unlink, missing_ok=True)
        del self._stored[name]
        self._writers.pop(name, None)

    async def _save(self, stored: _Stored) -> None:
        await asyncio.to_thread(self._write, stored)
        self._stored[stored.namespace.name] = stored

    def _write(self, stored: _Stored) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self._path(stored.namespace.name), msgspec.json.format(msgspec.json.encode(stored), indent=1))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _load(self) -> dict[str, _Stored]:
        found = (self._read(path) for path in sorted(self._folder.glob("[!.]*.json")))
        return {stored.namespace.name: stored for stored in found if stored is not None}

    def _read(self, path: Path) -> _Stored | None:
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
            _check(stored.namespace)
            if self._path(stored.namespace.name) != path:
                raise StokerError(f"it describes {stored.namespace.name!r}, whose file has another name")
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, StokerError) as error:
            return self._replace_unreadable(path, error)
        return stored

    def _replace_unreadable(self, path: Path, error: Exception) -> _Stored | None:
        """The namespace stays, so that what is in it can be reached; what was written on it is lost."""
        self._set_aside.mkdir(parents=True, exist_ok=True)
        goal = self._set_aside / f"namespace.{path.stem}.{int(time.time())}.json"
        log.error("%s cannot be read and is set aside as %s: %s", path, goal, error)
        try:
            shutil.move(path, goal)
            stored = _Stored(_marked(check_function_namespace(path.stem)))
            self._write(stored)
        except (OSError, StokerError) as failed:
            log.error("namespace %r is left out: %s", path.stem, failed)
            return None
        return stored


def _marked(name: str) -> FunctionNamespace:
    return FunctionNamespace(name, annotations={MARK: "1"}, labels={MARK: "1"})


def _check(namespace: FunctionNamespace) -> None:
    check_function_namespace(namespace.name)
    for key, value in (namespace.labels or {}).items():
        check_label(key, value)
    for key in namespace.annotations or {}:
        check_qualified_key(key, "annotation")
