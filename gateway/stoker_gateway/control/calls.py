"""`/system/calls`: async calls, by function and state, one by its id, cancelled, replayed; and many at once."""

from __future__ import annotations

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from stoker_gateway.control import answers
from stoker_gateway.control.bodies import last, read_struct
from stoker_gateway.control.keys import CALLS, CONFIG, NAMESPACES
from stoker_gateway.queue import many
from stoker_gateway.queue.calls import CallFilter, StoredCalls
from stoker_gateway.queue.kept import TRUNCATED
from stoker_gateway.queue.subjects import is_call_id
from stoker_sdk.errors import BadInput, NotFound
from stoker_sdk.messages import CallReplay
from stoker_sdk.names import DEFAULT_NAMESPACE, FunctionKey, check_function_name

STATUS_HEADER = "X-Stoker-Status"
_NOT_OF_RESULTS = frozenset(("connection", "content-length", "transfer-encoding", "x-stoker-error", "x-stoker-status"))
"""Headers that would be read as this answer's own."""
_MOST = 1000
_MOST_OF_STEP = 10_000
_REPLAY_LIMIT = 24 * 1024 * 1024
"""A body of 16 MiB is longer in base64."""


async def list_calls(request: web.Request) -> web.Response:
    calls = _calls(request)
    function, namespace = last(request, "function"), last(request, "namespace")
    if namespace or function:
        namespace = request.app[NAMESPACES].existing(namespace or DEFAULT_NAMESPACE)
    if function:
        check_function_name(function)
    wanted = CallFilter(namespace, function, last(request, "state"))
    return answers.json(await calls.page(wanted, last(request, "after"), _limit(last(request, "limit", "50"))))


async def purge_calls(request: web.Request) -> web.Response:
    """One step; the answer says where the next goes on."""
    calls, key = _calls(request), _function(request)
    state, after, limit = last(request, "state", "queued"), last(request, "after"), _step_limit(request)
    if state == "queued":
        return answers.json(await many.cancel_waiting(calls, key, after, limit))
    if state == "running":
        return answers.json(await many.cancel_running(calls, key))
    if state == "dead":
        return answers.json(await many.forget_dead(calls, key, after, limit))
    raise BadInput(
        f"state {state[:20]!r} cannot be purged: queued and running calls are cancelled, dead ones forgotten"
    )


async def replay_calls(request: web.Request) -> web.Response:
    """One step; the answer says where the next goes on."""
    calls, key = _calls(request), _function(request)
    changes = await read_struct(request, CallReplay, max(_REPLAY_LIMIT, request.app[CONFIG].body_limit))
    return answers.json(await many.replay_dead(calls, key, changes, last(request, "after"), _step_limit(request)))


async def show_call(request: web.Request) -> web.Response:
    return answers.json(await _calls(request).show(_id(request)))


async def cancel_call(request: web.Request) -> web.Response:
    await _calls(request).cancel(_id(request))
    return answers.accepted()


async def call_result(request: web.Request) -> web.Response:
    """The headers as they were; the status in a header of ours, because it is not that of this request."""
    answer, body = await _calls(request).result(_id(request))
    headers = CIMultiDict((name, value) for name, value in answer.fields if name.lower() not in _NOT_OF_RESULTS)
    headers[STATUS_HEADER] = str(answer.status)
    if answer.cut:
        headers[TRUNCATED] = "true"
    return web.Response(body=body, headers=headers)


async def replay_call(request: web.Request) -> web.Response:
    calls, id = _calls(request), _id(request)
    changes = await read_struct(request, CallReplay, max(_REPLAY_LIMIT, request.app[CONFIG].body_limit))
    # In the body, because the proxy sets an X-Call-Id of its own: that of this request.
    return web.Response(
        status=202, body=msgspec.json.encode(await calls.replay(id, changes)), content_type="application/json"
    )


def _calls(request: web.Request) -> StoredCalls:
    calls = request.app[CALLS]
    if calls is None:
        raise NotFound("async calls are switched off here: start without --no-async")
    return calls


def _function(request: web.Request) -> FunctionKey:
    """It need not exist any more."""
    function = last(request, "function")
    if not function:
        raise BadInput("which function's calls? Name it: function=NAME, and namespace=NAMESPACE where it is in another")
    namespace = request.app[NAMESPACES].existing(last(request, "namespace") or DEFAULT_NAMESPACE)
    return FunctionKey(namespace, check_function_name(function))


def _id(request: web.Request) -> str:
    id = request.match_info["id"]
    if not is_call_id(id):
        raise NotFound(f"no call can have the id {id[:80]!r}")
    return id


def _step_limit(request: web.Request) -> int:
    return _limit(last(request, "limit", "5000"), _MOST_OF_STEP)


def _limit(text: str, most: int = _MOST) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 6 and 1 <= int(text) <= most):
        raise BadInput(f"limit is {text[:20]!r}: write a number from 1 to {most}")
    return int(text)


ROUTES = (
    web.get("/system/calls", list_calls),
    web.delete("/system/calls", purge_calls),
    web.post("/system/calls/replay", replay_calls),
    web.get("/system/calls/{id}", show_call),
    web.get("/system/calls/{id}/result", call_result),
    web.delete("/system/calls/{id}", cancel_call),
    web.post("/system/calls/{id}/replay", replay_call),
)
