"""The metrics port: `/metrics` and `/healthz`, apart from the API, without credentials (contract 1, 7.1).

Each platform tells what it has counted itself. What several of a cluster see alike (replicas, calls that wait, missed
ticks) is told by their leader alone, so that a sum over all of them is right.
"""

from __future__ import annotations

import asyncio
import logging
import time

from aiohttp import web

from stoker_gateway.control import middleware
from stoker_gateway.control.call_metrics import CallMetrics
from stoker_gateway.control.health import tell_health
from stoker_gateway.control.keys import CONFIG, COUNTERS, NAMESPACES, PROVIDER, TRAFFIC
from stoker_gateway.counters import FunctionCounters
from stoker_sdk.errors import Unavailable

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CONTROL: web.AppKey[web.Application] = web.AppKey("control", web.Application)
CALL_METRICS: web.AppKey[CallMetrics | None] = web.AppKey("call metrics")


def make_metrics_app(control: web.Application, calls: CallMetrics | None = None) -> web.Application:
    """The application for the metrics port; it shows what `control`, from `make_app`, knows and counts.

    `calls` is None where async calls are off.
    """
    app = web.Application(middlewares=[middleware.answer_errors])
    app[CONTROL], app[CALL_METRICS] = control, calls
    app.on_response_prepare.append(middleware.drop_server_name)
    app.add_routes(
        (
            web.get("/metrics", show_metrics, allow_head=False),
            web.get("/healthz", tell_health, allow_head=False),
        )
    )
    return app


async def show_metrics(request: web.Request) -> web.Response:
    # Imported when first asked for: a platform that nobody scrapes need not hold it.
    from stoker_gateway.control.call_exposition import families
    from stoker_gateway.control.exposition import expose

    control = request.app[CONTROL]
    totals = await _totals(control)
    leads = control[PROVIDER].is_leader
    names = control[NAMESPACES].names() if leads else ()
    statuses = [status for name in names for status in control[PROVIDER].list(name)]
    calls = request.app[CALL_METRICS]
    more = families(await calls.figures(common=leads), time.time()) if calls else ()
    body = expose(totals, statuses, control[TRAFFIC], more)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


async def _totals(control: web.Application) -> list[FunctionCounters]:
    """Counts that cannot be had fail the scrape: a gap is the truth, a zero would be a reset."""
    try:
        async with asyncio.timeout(control[CONFIG].counters_wait):
            return await control[COUNTERS].totals()
    except TimeoutError:
        raise Unavailable("the proxies did not tell their counts in time: the next scrape tries again") from None
