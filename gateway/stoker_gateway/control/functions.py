"""`/system/functions` and `/system/function/NAME`: deploy, update, remove, list, describe (contract 2.4)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import msgspec
from aiohttp import web

from stoker_gateway.control import answers
from stoker_gateway.control.bodies import is_true, last, read_struct
from stoker_gateway.control.keys import CONFIG, COUNTERS, ENDPOINTS, NAMESPACES, OTHERS, PROVIDER, SECRETS
from stoker_gateway.control.namespaces import existing_namespace
from stoker_gateway.counters import FunctionCounters
from stoker_sdk.errors import BadInput, StokerError
from stoker_sdk.faults import FIXES, Fault
from stoker_sdk.function import FunctionSpec, FunctionStatus
from stoker_sdk.messages import DeleteFunctionRequest
from stoker_sdk.names import FunctionKey, check_function_name, key_from_route
from stoker_sdk.schedule import schedules_of

log = logging.getLogger(__name__)

REVISION_HEADER = "X-Stoker-Revision"


async def list_functions(request: web.Request) -> web.Response:
    namespace = existing_namespace(request, last(request, "namespace"))
    counts = await _call_counts(request.app)
    listed = request.app[PROVIDER].list(namespace)
    return answers.json([_with_urls(request.app, _with_count(status, counts)) for status in listed])


async def describe_function(request: web.Request) -> web.Response:
    status = request.app[PROVIDER].get(key_of_path(request, last(request, "namespace")))
    if not is_true(last(request, "usage")):
        status = msgspec.structs.replace(status, usage=None)
    return answers.json(await _with_faults(request.app, _with_urls(request.app, status)))


async def create_function(request: web.Request) -> web.Response:
    return await _deploy(request, create=True)


async def update_function(request: web.Request) -> web.Response:
    return await _deploy(request, create=False)


async def remove_function(request: web.Request) -> web.Response:
    body = await read_struct(request, DeleteFunctionRequest, request.app[CONFIG].body_limit)
    namespace = existing_namespace(request, body.namespace or last(request, "namespace"))
    if not body.function_name:
        raise BadInput("functionName: is required")
    await request.app[PROVIDER].remove(FunctionKey(namespace, check_function_name(body.function_name)))
    return answers.accepted()


def key_of_path(request: web.Request, namespace: str) -> FunctionKey:
    """The function that the path names, as `NAME` or, when no namespace is given apart, `NAME.NAMESPACE`."""
    key = key_from_route(request.match_info["name"])
    if namespace:
        key = FunctionKey(namespace, request.match_info["name"])
    return FunctionKey(existing_namespace(request, key.namespace), check_function_name(key.name))


async def _deploy(request: web.Request, *, create: bool) -> web.Response:
    spec = await read_struct(request, FunctionSpec, request.app[CONFIG].body_limit)
    spec.check()
    schedules_of(spec.annotations)  # not in `check`: a stored function must outlive a change of the time zones' names
    namespace = existing_namespace(request, spec.namespace or last(request, "namespace"))
    spec = msgspec.structs.replace(spec, namespace=namespace)
    async with request.app[NAMESPACES].written_in(namespace):
        await check_secrets(request, spec)
        with request.app[ENDPOINTS].reserve(str(spec.key), spec.annotations):
            revision = await request.app[PROVIDER].deploy(spec, create=create)
    return answers.accepted({REVISION_HEADER: str(revision)})


async def check_secrets(request: web.Request, spec: FunctionSpec) -> None:
    """Raise `BadInput` for a secret that is not there."""
    for name in spec.secrets or []:
        if not await request.app[SECRETS].exists(spec.namespace, name):
            raise BadInput(f"secret {name!r} does not exist in namespace {spec.namespace!r}: create it first")


async def _call_counts(app: web.Application) -> dict[str, int]:
    """Ended calls by `NAME.NAMESPACE`, at all gateways."""
    return Counter({counted.key: counted.ended for counted in await ask_counters(app)}) + Counter(app[OTHERS]())


async def ask_counters(app: web.Application) -> list[FunctionCounters]:
    """What the proxies counted; nothing when that cannot be had, for the answer matters more."""
    try:
        async with asyncio.timeout(app[CONFIG].counters_wait):
            return await app[COUNTERS].totals()
    except (StokerError, TimeoutError) as error:
        log.warning("functions are shown without their counts: %s", error or "no answer in time")
        return []


async def _with_faults(app: web.Application, status: FunctionStatus) -> FunctionStatus:
    """With the latest faults that calls met, each with a line that says what to do."""
    key = f"{status.name}.{status.namespace}"
    faults = [
        _explained(fault) for counted in await ask_counters(app) if counted.key == key for fault in counted.faults
    ]
    if not faults or status.stoker is None:
        return status
    return msgspec.structs.replace(status, stoker=msgspec.structs.replace(status.stoker, faults=faults))


def _explained(fault: Fault) -> Fault:
    return msgspec.structs.replace(fault, message=fault.message or FIXES.get(fault.code, ""))


def _with_urls(app: web.Application, status: FunctionStatus) -> FunctionStatus:
    """With its public addresses."""
    key, endpoints = f"{status.name}.{status.namespace}", app[ENDPOINTS]
    urls, refused = endpoints.urls(key), endpoints.refused(key)
    if status.stoker is None or not (urls or refused):
        return status
    return msgspec.structs.replace(
        status, stoker=msgspec.structs.replace(status.stoker, urls=urls, refused_urls=refused)
    )


def _with_count(status: FunctionStatus, counts: dict[str, int]) -> FunctionStatus:
    count = counts.get(f"{status.name}.{status.namespace}", 0)
    return msgspec.structs.replace(status, invocation_count=float(count)) if count else status


ROUTES = (
    web.get("/system/functions", list_functions),
    web.post("/system/functions", create_function),
    web.put("/system/functions", update_function),
    web.delete("/system/functions", remove_function),
    web.get("/system/function/{name}", describe_function),
)
