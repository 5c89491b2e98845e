"""The gateway as a run sees it: the public API, asked again while the platform's parts come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from stoker_builder.errors import FailedBuild
from stoker_builder.images.builder import Built, Order
from stoker_builder.images.local import LocalBuilder
from stoker_sdk.client import ControlClient
from stoker_sdk.credentials import basic_authorization
from stoker_sdk.data_dir import ADMIN
from stoker_sdk.errors import Conflict, NotFound, StokerError, Unavailable
from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.http_client import HttpClient
from stoker_sdk.rollout import Mode, Progress, deploy, wait_until_ready

PATIENCE: Final = 60.0
"""Seconds for which the platform may be away, as when a process of it is started again."""
_PAUSE: Final = 0.25
_ALONE_SECONDS: Final = 30.0
_BUILD_TRIES: Final = 3
_BROKEN: Final = ("internal", "unavailable", "cancelled")
"""Codes of builds that ended by the platform's fault, such as a builder that was killed."""

T = TypeVar("T")


class Gateway:
    """Functions of one namespace, empty for the default one. Methods raise `StokerError`s; `Unavailable` only after
    `PATIENCE`. It is the local `ImageBuilder`, too.
    """

    def __init__(self, address: str, password_file: Path, namespace: str = "") -> None:
        authorization = basic_authorization(ADMIN, password_file.read_text().strip())
        self.namespace = namespace
        self._client = ControlClient(HttpClient(address, authorization, timeout=60))

    def functions(self) -> list[FunctionStatus]:
        return _patiently(lambda: self._client.functions(self.namespace))

    def find(self, name: str) -> FunctionStatus | None:
        try:
            return _patiently(lambda: self._client.function(name, self.namespace))
        except NotFound:
            return None

    def build(self, order: Order, progress: Progress, *, push: bool = False) -> Built:
        """Raises `FailedBuild`."""
        for attempt in range(1, _BUILD_TRIES + 1):
            try:
                return self._build_once(order, progress, push=push)
            except FailedBuild as error:
                if error.code not in _BROKEN or attempt == _BUILD_TRIES:
                    raise
                progress.log(f"{error}; the build begins again")
        raise AssertionError

    def _build_once(self, order: Order, progress: Progress, *, push: bool) -> Built:
        try:
            return LocalBuilder(self._client.build).build(order, progress, push=push)
        except StokerError as error:
            if not isinstance(error, Unavailable) and type(error) is not StokerError:  # the latter is a 500
                raise
            _patiently(self._client.info)  # wait until it is back
            raise FailedBuild(str(error), "unavailable") from None

    def deploy(self, spec: FunctionSpec, *, exists: bool) -> int:
        """The revision. Raises `Conflict` when it is there against `exists`: somebody deployed it meanwhile."""
        spec = self._placed(spec)
        if exists:
            return _patiently(lambda: deploy(self._client, spec, Mode.UPDATE))
        try:
            return _patiently(lambda: self._client.create(spec))
        except Conflict:
            found = self.find(spec.service)
            if found is None or (found.annotations or {}) != spec.annotations:
                raise
            return found.stoker.revision if found.stoker else 0  # an answer of ours was lost, not the deploy

    def wait_until_live(
        self, spec: FunctionSpec, revision: int, seconds: float, log: Callable[[str], None]
    ) -> FunctionStatus | None:
        """Until it is ready, and the version before it gets no calls any more: on a cluster that goes a moment later.
        Returns its status then. Raises `StokerError` with the reason why it did not get ready.
        """
        wait_until_ready(self._client, self._placed(spec), revision, seconds, _Lines(log))
        deadline = time.monotonic() + _ALONE_SECONDS
        while True:
            status = self.find(spec.service)
            condition = status.stoker if status else None
            if condition is None or not 0 < condition.serving < revision or time.monotonic() > deadline:
                return status
            time.sleep(_PAUSE)

    def go_back(self, name: str) -> int:
        """Ask for the revision that still serves, so that nothing starts the failed one later; 0 if none does."""
        status = self.find(name)
        condition = status.stoker if status else None
        serving = condition.serving if condition and condition.state == "failed" else 0
        if serving:
            _patiently(lambda: self._client.rollback(name, serving, self.namespace))
        return serving

    def remove(self, name: str) -> None:
        try:
            _patiently(lambda: self._client.remove(name, self.namespace))
        except NotFound:
            pass

    def _placed(self, spec: FunctionSpec) -> FunctionSpec:
        return msgspec.structs.replace(spec, namespace=self.namespace)


class _Lines:
    def __init__(self, log: Callable[[str], None]) -> None:
        self.log = log

    def step(self, text: str) -> None:
        """Not shown: the run has steps of its own."""


def _patiently(action: Callable[[], T]) -> T:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
