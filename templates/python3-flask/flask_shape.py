"""Calls a handler that was written for Flask: the body as text in, whatever a Flask view may return out.

Where the function's packages have Flask, the handler runs in a request's context (`flask.request` works) and Flask makes
the answer. Without it, text, bytes, dicts, lists, and tuples of body, status and headers are understood.
"""

import asyncio
import inspect
import os

from function import handler

try:
    import flask
except ImportError:
    flask = None

_RAW = os.environ.get("RAW_BODY", "").lower() in ("true", "1")
_app = flask.Flask("function") if flask else None


def _wrapped(name):
    hook = getattr(handler, name, None)
    if hook is None or not callable(hook):
        return None
    takes_context = bool(inspect.signature(hook).parameters)
    if inspect.iscoroutinefunction(hook):

        async def call(context):
            return await (hook(context) if takes_context else hook())
    else:

        def call(context):
            return hook(context) if takes_context else hook()

    return call


for _name in ("init", "health", "close"):  # the watchdog takes hooks that the module itself defines
    globals()[_name] = _wrapped(_name)


def handle(event, context):
    argument = event.body if _RAW else event.text
    if _app is None:
        return _answer(_called(argument))
    method, url = event.method, event.path + ("?" + event.raw_query if event.raw_query else "")
    fields = [(name, value) for name in event.headers for value in event.headers.getlist(name)]
    with _app.test_request_context(url, method=method, data=event.body, headers=fields):
        return _from_flask(_app.make_response(_called(argument)))


def _called(argument):
    result = handler.handle(argument)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def _from_flask(response):
    headers = {}
    for name, value in response.headers.items():
        headers.setdefault(name, []).append(value)
    body = response.iter_encoded() if response.is_streamed else response.get_data()
    return {"statusCode": response.status_code, "headers": headers, "body": body}


def _answer(result):
    status, headers = 200, {}
    if isinstance(result, tuple):
        result, *more = result
        for one in more:
            if isinstance(one, int):
                status = one
            elif isinstance(one, str) and one[:3].isdigit():
                status = int(one[:3])
            else:
                headers = _fields(one)
    if isinstance(result, str) and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "text/html; charset=utf-8"  # as Flask says of text
    return {"statusCode": status, "headers": headers, "body": result}


def _fields(headers):
    pairs = headers.items() if hasattr(headers, "items") else headers
    fields = {}
    for name, value in pairs:
        fields.setdefault(name, []).extend(value if isinstance(value, (list, tuple)) else [value])
    return fields
