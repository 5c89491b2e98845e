"""`/system/figures`: how much each function is called, how that went, and since when its last revision is there."""

from __future__ import annotations

from aiohttp import web

from stoker_gateway.control import answers
from stoker_gateway.control.functions import ask_counters
from stoker_gateway.control.keys import NAMESPACES, PROVIDER
from stoker_gateway.counters import FunctionCounters
from stoker_sdk.function import FunctionStatus
from stoker_sdk.messages import FunctionFigures
from stoker_sdk.names import FunctionKey
from stoker_sdk.units import format_rfc3339


async def list_figures(request: web.Request) -> web.Response:
    counters = {one.key: one for one in await ask_counters(request.app)}
    provider = request.app[PROVIDER]
    statuses = [status for name in request.app[NAMESPACES].names() for status in provider.list(name)]
    return answers.json(
        [
            _figures(status, provider.revisions(key)[-1].created_at, counters.get(str(key)) or FunctionCounters(""))
            for status in statuses
            for key in [FunctionKey(status.namespace, status.name)]
        ]
    )


def _figures(status: FunctionStatus, deployed_at: str, counters: FunctionCounters) -> FunctionFigures:
    first = counters.first_call if status.stoker and counters.revision == status.stoker.revision else 0
    timings = counters.timings
    return FunctionFigures(
        name=status.name,
        namespace=status.namespace,
        deployed_at=deployed_at,
        first_call_at=format_rfc3339(first * 10**9) if first else "",
        running=counters.inflight,
        codes={str(code): each.count for code, each in sorted(counters.codes.items())},
        p50=timings.quantile(0.5),
        p95=timings.quantile(0.95),
    )


ROUTES = (web.get("/system/figures", list_figures),)
