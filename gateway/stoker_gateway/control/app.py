"""The control API as one aiohttp application: which routes there are, and what every request passes.

Proxies forward to it whatever is not a call. It holds no state of its own: functions are the provider's,
secrets the store's, counts the proxies'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from stoker_gateway.control import (
    alert,
    builds,
    calls,
    figures,
    functions,
    health,
    info,
    logs,
    middleware,
    namespaces,
    openapi,
    revisions,
    runs,
    scale,
    secrets,
)
from stoker_gateway.control.config import ControlConfig
from stoker_gateway.control.keys import (
    BUILD_PLACES,
    CALLS,
    CONFIG,
    COUNTERS,
    ENDPOINTS,
    NAMESPACES,
    OTHERS,
    PROVIDER,
    SECRETS,
    STOPPING,
    TRAFFIC,
)
from stoker_gateway.control.traffic import Traffic
from stoker_gateway.counters import Counters
from stoker_gateway.endpoints import Endpoints, HostPolicy
from stoker_gateway.namespaces import NamespaceStore
from stoker_gateway.providers.base import Provider
from stoker_gateway.queue.calls import StoredCalls
from stoker_gateway.secrets import Secrets

ROUTES = (
    *functions.ROUTES,
    *figures.ROUTES,
    *revisions.ROUTES,
    *scale.ROUTES,
    *alert.ROUTES,
    *logs.ROUTES,
    *secrets.ROUTES,
    *namespaces.ROUTES,
    *info.ROUTES,
    *calls.ROUTES,
    *builds.ROUTES,
    *runs.ROUTES,
    *openapi.ROUTES,
    *health.ROUTES,
)

MAX_HEAD_FIELD = 64 * 1024
MAX_REQUEST_LINE = 16 * 1024
"""In bytes, as the proxies allow them: what they let in must not be refused behind them."""

SHUTDOWN_TIMEOUT = 3.0
"""Seconds that running requests get; long answers end by themselves when the stop begins."""


def make_app(
    config: ControlConfig,
    provider: Provider,
    secret_store: Secrets,
    namespace_store: NamespaceStore,
    counters: Counters,
    stored_calls: StoredCalls | None = None,
    endpoints: Endpoints | None = None,
    others: Callable[[], Mapping[str, int]] = dict,
) -> web.Application:
    """The application; `stored_calls` is None where async calls are off, `endpoints` where nothing follows the table.

    `others` gives the calls that ended at other gateways, by function.

    The caller starts and closes the provider, and serves this with `make_runner`.
    """
    app = web.Application(
        middlewares=[
            middleware.count,
            middleware.answer_errors,
            middleware.redirect_unclean,
            middleware.check_credentials,
        ]
    )
    app[CONFIG], app[PROVIDER], app[COUNTERS] = config, provider, counters
    app[CALLS], app[OTHERS] = stored_calls, others
    app[ENDPOINTS] = endpoints or Endpoints(HostPolicy())
    app[SECRETS], app[NAMESPACES] = secret_store, namespace_store
    app[TRAFFIC], app[STOPPING] = Traffic(), asyncio.Event()
    app[BUILD_PLACES] = asyncio.Semaphore(config.builds_at_once)
    app.add_routes(ROUTES)
    app.cleanup_ctx.append(builds.keep_builders)
    app.on_response_prepare.append(middleware.drop_server_name)
    app.on_shutdown.append(_stop_long_answers)
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner with our limits, for both applications; `setup()` it, then start a `UnixSite` or `TCPSite`."""
    return web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=SHUTDOWN_TIMEOUT,
        max_line_size=MAX_REQUEST_LINE,
        max_field_size=MAX_HEAD_FIELD,
    )


async def _stop_long_answers(app: web.Application) -> None:
    app[STOPPING].set()
