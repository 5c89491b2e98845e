"""`/system/alert`: Alertmanager's webhook, which scales functions up while an alert fires (contract 2.4, 6.2).

An alert adds a step each time that it comes; when it is resolved the function goes back to its minimum.
"""

from __future__ import annotations

import logging

from aiohttp import web

from stoker_gateway.control import answers
from stoker_gateway.control.bodies import read_struct
from stoker_gateway.control.keys import CONFIG, PROVIDER
from stoker_sdk.errors import BadInput, NotFound, StokerError, TooLarge, TooSlow
from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.messages import Alert, AlertGroup
from stoker_sdk.names import key_from_route

log = logging.getLogger(__name__)


def next_replicas(status: str, current: int, spec: FunctionSpec) -> int:
    """How many replicas an alert of this status asks for; `spec` has the labels that bound it.

    A factor of 0 switches alerts off. A function that was scaled to zero is started by no resolved alert.
    """
    factor, most = spec.scale_factor, spec.max_replicas
    if not factor or (status != "firing" and not current):
        return current
    if status != "firing":
        return spec.min_replicas
    step = -(-most * factor // 100)
    return max(current, min(current + step, most))


async def take_alert(request: web.Request) -> web.Response:
    """Every alert is tried; 500 tells those that failed, one line each. An unknown function is no failure."""
    failures = []
    for index, alert in enumerate((await _read(request)).alerts or []):
        try:
            await _scale(request.app, alert)
        except StokerError as error:
            failures.append(f"[{index}] {error}")
    if failures:
        return answers.failure(500, "alert-failed", "\n".join(failures))
    return web.Response()


async def _read(request: web.Request) -> AlertGroup:
    """The errors are the contract's, word for word: there is a person behind them who looks them up."""
    try:
        return await read_struct(request, AlertGroup, request.app[CONFIG].body_limit)
    except (TooLarge, TooSlow):
        raise
    except BadInput as error:
        log.warning("an alert could not be read: %s", error)
        raise BadInput("Unable to parse alert, bad format.") from None


async def _scale(app: web.Application, alert: Alert) -> None:
    key = key_from_route((alert.labels or {}).get("function_name", ""))
    try:
        status = app[PROVIDER].get(key)
    except NotFound:
        return
    wanted = next_replicas(alert.status, status.replicas, _bounds(status))
    if wanted != status.replicas:
        await app[PROVIDER].scale(key, wanted)


def _bounds(status: FunctionStatus) -> FunctionSpec:
    return FunctionSpec(status.name, labels=status.labels)


ROUTES = (web.post("/system/alert", take_alert),)
