"""The parts that every route can reach, by typed key, in the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from stoker_gateway.control.config import ControlConfig
from stoker_gateway.control.traffic import Traffic
from stoker_gateway.counters import Counters
from stoker_gateway.endpoints import Endpoints
from stoker_gateway.namespaces import NamespaceStore
from stoker_gateway.providers.base import Provider
from stoker_gateway.queue.calls import StoredCalls
from stoker_gateway.secrets import Secrets

CONFIG: web.AppKey[ControlConfig] = web.AppKey("config", ControlConfig)
PROVIDER: web.AppKey[Provider] = web.AppKey("provider")
SECRETS: web.AppKey[Secrets] = web.AppKey("secrets")
NAMESPACES: web.AppKey[NamespaceStore] = web.AppKey("namespaces", NamespaceStore)
COUNTERS: web.AppKey[Counters] = web.AppKey("counters")
ENDPOINTS: web.AppKey[Endpoints] = web.AppKey("endpoints", Endpoints)
TRAFFIC: web.AppKey[Traffic] = web.AppKey("traffic", Traffic)
BUILD_PLACES: web.AppKey[asyncio.Semaphore] = web.AppKey("build places", asyncio.Semaphore)
STOPPING: web.AppKey[asyncio.Event] = web.AppKey("stopping", asyncio.Event)
OTHERS: web.AppKey[Callable[[], Mapping[str, int]]] = web.AppKey("counts of others")
CALLS: web.AppKey[StoredCalls | None] = web.AppKey("stored calls")
