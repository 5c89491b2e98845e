"""Stages 3 to 5: each function is built with its tests, deployed, waited for; then what left the stack is removed.

A function that fails leaves its old version serving, and does not hold up the others of the stack. Nothing is removed
unless all of them went well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec

from stoker_builder.errors import FailedBuild
from stoker_builder.pipeline.run.gateway import Gateway
from stoker_builder.pipeline.run.images import Images
from stoker_builder.pipeline.run.manifest import (
    LABELS_OF_GIT,
    NOT_IN_PREVIEWS,
    SOURCE,
    Manifest,
    Wanted,
    place_mark,
)
from stoker_builder.pipeline.run.teller import Teller
from stoker_builder.request import BuildRequest
from stoker_builder.templates import find_template
from stoker_builder.tree import digest_of, digest_tree
from stoker_sdk import __version__
from stoker_sdk.errors import BadInput, Conflict, NotFound, StokerError
from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.gateway_address import function_url
from stoker_sdk.origin import ORIGIN_ANNOTATIONS, origin_of
from stoker_sdk.runs import ACCOUNT, PLACE, RUN, SHA, FunctionResult, Push, Run

_COMPARED_WITHOUT: Final = (SHA, RUN)
_SHA_LABEL: Final = "com.openfaas.cloud.git-sha"
_FAILED_TEST: Final = re.compile(r"^(?:FAILED|ERROR) (\S+)|^--- FAIL: (\S+)|^not ok \d+ - (.+)$", re.MULTILINE)
_CHUNK: Final = 1 << 20
_MARGIN_SECONDS: Final = 60.0


def deploy_all(
    manifest: Manifest, run: Run, gateway: Gateway, images: Images, teller: Teller, *, url: str, seconds: float
) -> None:
    """Bring the platform to what the manifest says. Failures are in the teller's results. `url` is the public address,
    `seconds` how long a function may take to get ready. Raises `Superseded`.
    """
    teller.expect([FunctionResult(each.name, each.origin.name) for each in manifest.functions])
    deployed = {status.name: status for status in gateway.functions()}
    work = _Work(run, gateway, images, teller, url, seconds)
    functions = [each for each in manifest.functions if not (run.push.pull and work.is_live_already(each, deployed))]
    for wanted in functions:
        work.bring(wanted, deployed.get(wanted.origin.name))
    if teller.has_failed():
        return
    kept = {wanted.origin.name for wanted in functions}
    left = [status for status in deployed.values() if status.name not in kept and is_of(status, run)]
    if left:
        work.ask_leave()
    for status in left:
        remove(status, gateway, teller)


def remove_all(run: Run, gateway: Gateway, teller: Teller) -> None:
    """The branch or repository is gone, and so are its functions."""
    for status in gateway.functions():
        if is_of(status, run):
            remove(status, gateway, teller)


def remove(status: FunctionStatus, gateway: Gateway, teller: Teller) -> None:
    origin = origin_of(status.annotations)
    name = origin.function if origin else status.name
    gateway.remove(status.name)
    teller.result(name, service=status.name, state="removed")
    teller.log("removed: it is not in the stack any more", name)


def is_of(status: FunctionStatus, run: Run) -> bool:
    """Whether the function came from the run's branch (or pull request) of its repository, and from no other account
    that had the owner's name before.
    """
    push, account = run.push, (status.annotations or {}).get(ACCOUNT, "")
    here = push.owner.lower(), push.repository.lower(), push.pull, place_mark(push)
    return _owner_of(status) == here and (account == run.account or not (account and run.account))


def _owner_of(status: FunctionStatus) -> tuple[str, str, int, str] | None:
    annotations = status.annotations or {}
    try:
        origin = origin_of(annotations)
    except BadInput:
        return None
    return (origin.owner, origin.repository, origin.pull, annotations.get(PLACE, "")) if origin else None


class Superseded(Exception):
    """Another commit is to be live: this run stops where it is. The message says which."""


class _Work:
    """One function after the other, for one run."""

    def __init__(self, run: Run, gateway: Gateway, images: Images, teller: Teller, url: str, seconds: float) -> None:
        self._run = run
        self._push = run.push
        self._gateway = gateway
        self._images = images
        self._teller = teller
        self._url = url
        self._seconds = seconds

    def is_live_already(self, wanted: Wanted, deployed: Mapping[str, FunctionStatus]) -> bool:
        """Whether a pull request leaves the function as the default branch has it, so that it needs no preview."""
        live = deployed.get(wanted.origin._replace(pull=0).name)
        if live is None or (live.annotations or {}).get(SOURCE) != self._source(wanted):
            return False
        wants = FunctionStatus.of(wanted.spec)
        if _settings_of(live, self._push) != _settings_of(wants, self._push):
            return False
        address = self._address(msgspec.structs.replace(wanted.spec, service=live.name), live)
        self._teller.result(wanted.name, service=live.name, state="unchanged", image=live.image, url=address)
        self._teller.log(f"unchanged, as it is live at {address}", wanted.name)
        return True

    def bring(self, wanted: Wanted, status: FunctionStatus | None) -> None:
        """Build and deploy it, if anything of it has changed."""
        name = wanted.name
        log = self._teller.log_of(name)
        try:
            self._check_ours(status)
            source = self._source(wanted)
            if status is not None and (status.annotations or {}).get(SOURCE) == source:
                image = status.image
            else:
                image = self._build(wanted, source)
            spec = _with_image(wanted.spec, image, source)
            if status is not None and _says_the_same(status, spec) and _stands(status):
                address = self._address(spec, status)
                self._teller.result(name, state="unchanged", image=image, url=address)
                log(f"unchanged, live at {address}")
                return
            self._deploy(name, spec, exists=status is not None)
        except StokerError as error:
            self._fail(name, error)
            if isinstance(error, FailedBuild) and status is not None and _stands(status):
                log(f"what was there before goes on: {self._address(wanted.spec, status)}")

    def _check_ours(self, status: FunctionStatus | None) -> None:
        if status is None or is_of(status, self._run):
            return
        origin = _owner_of(status)
        whose = f"belongs to {origin[0]}/{origin[1]} {origin[3]}" if origin else "was not deployed by a push"
        if account := (status.annotations or {}).get(ACCOUNT, ""):
            whose += f" of the account {account}"
        raise Conflict(
            f"function {status.name!r} {whose}, and is left alone: remove it (`stoker remove {status.name}`), "
            "or rename this one"
        )

    def ask_leave(self) -> None:
        """Raises `Superseded` when the commit must not go live."""
        if stop := self._teller.may_deploy():
            raise Superseded(stop)

    def _source(self, wanted: Wanted) -> str:
        return source_digest(wanted.request, self._images.kind)

    def _build(self, wanted: Wanted, source: str) -> str:
        self._teller.result(wanted.name, state="building")
        log = self._teller.log_of(wanted.name)
        log("building")
        with self._teller.timed("build", wanted.name):
            built = self._images.build(wanted, self._push, source, log)
        self._teller.split("build", built.seconds, wanted.name)
        return built.image

    def _deploy(self, name: str, spec: FunctionSpec, *, exists: bool) -> None:
        self.ask_leave()
        self._teller.result(name, state="deploying", image=spec.image)
        log = self._teller.log_of(name)
        with self._teller.timed("deploy", name):
            revision = self._gateway.deploy(spec, exists=exists)
        try:
            with self._teller.timed("ready", name):
                status = self._gateway.wait_until_live(spec, revision, self._patience(spec), log)
        except StokerError:
            if exists and (serving := self._gateway.go_back(spec.service)):
                log(f"revision {serving} goes on serving")
            raise
        address = self._address(spec, status)
        self._teller.result(name, state="deployed", url=address)
        log(f"live at {address}")
        for refused in status.stoker.refused_urls if status and status.stoker else ():
            log(f"not at {refused}")

    def _patience(self, spec: FunctionSpec) -> float:
        """In seconds: longer than the platform waits itself, or the run would end before it is known how it went."""
        return max(self._seconds, spec.deploy_deadline + _MARGIN_SECONDS, spec.start_timeout + _MARGIN_SECONDS)

    def _fail(self, name: str, error: StokerError) -> None:
        text = str(error)
        test = _failed_test(text) if isinstance(error, FailedBuild) else ""
        reason = f"test failed: {test}" if test else text.splitlines()[0]
        self._teller.result(name, state="failed", reason=reason, test=test)
        if isinstance(
            error, FailedBuild
        ):  # the log has the lines that follow, and the name is before each of its lines
            text = text.splitlines()[0].removeprefix(f"{name}: ").removesuffix(" Their last lines:")
        for line in text.splitlines():
            self._teller.log(f"failed: {line}", name)

    def _address(self, spec: FunctionSpec, status: FunctionStatus | None) -> str:
        """The first public address; where there is none, the one by its name."""
        public = status.stoker.urls if status and status.stoker else []
        return public[0] if public else function_url(self._url, spec.service, self._gateway.namespace)


def source_digest(request: BuildRequest, kind: str = "") -> str:
    """Of all that a build is made from: handler, copied folders, own template or built-in one, arguments, release; and
    of `kind`, which is empty for what the platform keeps itself, else says where images go.
    """
    digest = hashlib.sha256()
    with replace(request, settings=msgspec.structs.replace(request.settings, secrets={})).packed() as archive:
        while chunk := archive.read(_CHUNK):
            digest.update(chunk)
    return "sha256:" + digest_of([__version__, digest.digest(), _template_digest(request), *([kind] if kind else [])])


def _template_digest(request: BuildRequest) -> str:
    if request.template is not None:
        return "sent along"
    try:
        return digest_tree(find_template(request.settings.lang).path)
    except NotFound:
        return "unknown"  # the build says so


def _with_image(spec: FunctionSpec, image: str, source: str) -> FunctionSpec:
    return msgspec.structs.replace(spec, image=image, annotations=(spec.annotations or {}) | {SOURCE: source})


def _says_the_same(status: FunctionStatus, spec: FunctionSpec) -> bool:
    """Whether the platform has the function as it is wanted; from which commit does not count."""
    return _comparable(FunctionStatus.of(spec)) == _comparable(status)


def _comparable(status: FunctionStatus) -> list[object]:
    return [
        status.image,
        status.env_vars or {},
        sorted(status.secrets or []),
        _without(status.labels, (_SHA_LABEL,)),
        _without(status.annotations, _COMPARED_WITHOUT),
        status.limits,
        status.requests,
        status.read_only_root_filesystem,
    ]


def _settings_of(status: FunctionStatus, push: Push) -> list[object]:
    """What a pull request may change beside the source. Of a fork, secrets are not looked at."""
    labels = {key: text for key, text in (status.labels or {}).items() if not key.startswith(LABELS_OF_GIT)}
    annotations = _without(
        status.annotations, (*ORIGIN_ANNOTATIONS, *_COMPARED_WITHOUT, *NOT_IN_PREVIEWS, PLACE, ACCOUNT, SOURCE)
    )
    secrets = [] if push.is_strangers else sorted(status.secrets or [])
    limits = [status.limits, status.requests, status.read_only_root_filesystem]
    return [status.env_vars or {}, secrets, labels, annotations, *limits]


def _without(values: Mapping[str, str] | None, names: tuple[str, ...]) -> dict[str, str]:
    return {key: text for key, text in (values or {}).items() if key not in names}


def _stands(status: FunctionStatus) -> bool:
    """Whether its last deploy went well, so that nothing has to be done."""
    return status.stoker is None or status.stoker.state in ("ready", "zero")


def _failed_test(text: str) -> str:
    """The name of the first failed test in what pytest, go test or a TAP reporter printed; empty if there is none."""
    match = _FAILED_TEST.search(text)
    return next((group for group in match.groups() if group), "") if match else ""
