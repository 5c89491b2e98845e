"""One build from end to end: receive, plan, environment, assemble, test, publish.

Each stage is a function from values to a value; this module only puts them in order, under the lock of the
artefact's digest, so that two builds of the same inputs make one artefact.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

from stoker_builder.artefact import publish, write_manifest
from stoker_builder.build_secrets import check_clean, forms_of
from stoker_builder.caches import Caches, shared_caches
from stoker_builder.child import Children, Confinement, end
from stoker_builder.config import Config, step_settings
from stoker_builder.confinement import own_files_of
from stoker_builder.control_group import ControlGroup, control_group
from stoker_builder.interpreter import prepare_interpreter
from stoker_builder.plan import Plan, make_plan
from stoker_builder.receive import receive
from stoker_builder.report import Report
from stoker_builder.staging import lock, staging_folder
from stoker_builder.testing import run_tests
from stoker_builder.usage import Usage
from stoker_builder.warm_tests import Ready, WarmTests, remember
from stoker_builder.way_out import WayOut, way_out
from stoker_builder.workshop import Workshop
from stoker_sdk.function import LOCAL_REGISTRY


@dataclass(frozen=True)
class Built:
    """The artefact's reference as deploy takes it, whether it was there already, and how long its tests took."""

    image: str
    cached: bool
    seconds: Mapping[str, float] = field(default_factory=dict)


def build(stream: BinaryIO, config: Config, report: Report, ready: Ready | None = None) -> Built:
    """Build what the tar on `stream` asks for, with what was `ready` before. Raises `StokerError`, and `Cancelled` if
    the reader goes away.
    """
    with nullcontext(ready.staging) if ready else staging_folder(config.data.builds) as staging:
        upload = staging / "upload"
        upload.mkdir(mode=0o700)
        request = receive(stream, upload)
        report.hide(forms_of(request.secrets))
        plan = make_plan(request)
        installer = config.ids.id_for("builder") if config.ids else None
        image = f"{LOCAL_REGISTRY}/{plan.request.name}@sha256:{plan.digest}"
        if _is_published(plan, config):
            return Built(image, cached=True)
        with (
            lock(config.data.builds / "locks" / f"artefact-{plan.digest}", _waiting(report)),
            nullcontext(ready.group) if ready else control_group(staging, config.bounds) as group,
        ):
            if _is_published(plan, config):
                return Built(image, cached=True)
            with (
                shared_caches(config.data.builds, config.bounds.cache, report.log, installer) as caches,
                ExitStack() as held,
            ):
                seconds = _make(plan, config, report, staging, caches, group, held, ready.tests if ready else None)
    return Built(image, cached=False, seconds=seconds)


def _make(
    plan: Plan,
    config: Config,
    report: Report,
    staging: Path,
    caches: Caches,
    group: ControlGroup | None,
    held: ExitStack,
    warm: WarmTests | None,
) -> dict[str, float]:
    """Returns the seconds of the parts that are told."""
    settings = step_settings(plan.request.build_args, config)
    if warm is not None and not warm.suits(plan, settings, config):
        end(warm.process)
        warm = None
    for note in plan.template.notes:
        report.log(note)
    if plan.request.build_args.get("ADDITIONAL_PACKAGE"):
        report.log("ADDITIONAL_PACKAGE is left out: a local build installs no system packages")
    interpreter = prepare_interpreter(config.data.path)
    usage = Usage(config.bounds, staging, caches.folder, group)

    def check(ended: bool) -> None:
        report.check_reader()
        usage.look(ended=ended)

    children = Children(check, Confinement(group, own_files_of(config, interpreter)))
    workshop = Workshop(
        config=config,
        interpreter=interpreter,
        children=children,
        staging=staging,
        caches=caches,
        log=report.log,
        waiting=_waiting(report),
        way_out=cache(lambda: _way_out(plan, config, report, children, held)),
        warm_tests=warm,
        secrets=plan.request.secrets,
    )
    final, function = config.data.artefact(plan.digest), staging / "function"
    if final.is_dir():
        plan.language.install(plan, workshop)  # only its environment was gone
        return {}
    plan.language.check(plan, workshop)
    environment = plan.language.install(plan, workshop)
    plan.language.assemble(plan, function, environment, workshop)
    check_clean(function, workshop.secrets)
    begun = time.monotonic()
    step = run_tests(plan, settings, function, environment, workshop)
    tests = round(time.monotonic() - begun, 3)
    remember(plan, step, config, staging)
    plan.language.finish(plan, function, final)
    write_manifest(plan, function)
    publish(function, final, workshop.user_for(f"artefact:{plan.digest}"))
    return {"tests": tests}


def _way_out(plan: Plan, config: Config, report: Report, children: Children, held: ExitStack) -> WayOut | None:
    """Of a pushed function's installers; made when the first one starts."""
    if not plan.request.offline:
        return None
    user = config.ids.id_for("way out") if config.ids else None
    way = held.enter_context(way_out(config.index_environment, config.reach, user)) if user is not None else None
    if way is None:
        report.log("packages: with the machine's network, because the platform may not make another")
    else:
        children.kept.add(way.pid)
    return way


def _is_published(plan: Plan, config: Config) -> bool:
    environment = not plan.environment or _is_there(config.data.environment(plan.environment))
    return environment and _is_there(config.data.artefact(plan.digest))


def _is_there(folder: Path) -> bool:
    """Whether it is, and if so its time set anew: the platform removes what nobody has used for a day."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    return True


def _waiting(report: Report) -> Callable[[], None]:
    told = False

    def waiting() -> None:
        nonlocal told
        report.check_reader()
        if not told:
            report.log("waiting: another build is making the same")
        told = True

    return waiting
