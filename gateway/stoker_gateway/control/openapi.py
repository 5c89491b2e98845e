"""`/openapi.json`: the control API described in OpenAPI 3.1.

Schemas are made from the structs that are decoded and encoded, so that they cannot drift; `openapi_operations` has what
is written by hand. Open without credentials: it says nothing about this platform that the source does not.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import msgspec
from aiohttp import web

from stoker_gateway.control.openapi_operations import NARROWED, OPERATIONS, REQUIRED, STRUCTS, Operation
from stoker_sdk import __version__

_REFERENCE = "#/components/schemas/{name}"
_JSON = "application/json"
_ERRORS = {
    400: "What was sent cannot be used; the text says what and why.",
    401: "The credentials are missing or wrong.",
    404: "There is no such thing.",
    408: "The body stopped coming.",
    409: "It exists already, or its state does not allow this.",
    413: "The body is longer than this route takes.",
    422: "The secret's name or value is refused.",
    500: "It failed; each line of the text says what.",
    503: "A part that is needed is not there now.",
}


async def show_description(request: web.Request) -> web.Response:
    return web.Response(body=_encoded(), content_type=_JSON)


@cache
def _encoded() -> bytes:
    return msgspec.json.encode(describe())


def describe() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stoker control API",
            "version": __version__,
            "description": "The API of a function platform, by the OpenFaaS contract. Functions themselves are called "
            "at `/function/NAME[.NAMESPACE]/…` with any method and no credentials.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"basic": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "responses": {str(status): _error(status, text) for status, text in _ERRORS.items()},
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *operation.query],
        "responses": _responses(operation),
    }
    if operation.body:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    if operation.open:
        described["security"] = []
    return described


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [part.strip("{}") for part in operation.path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _responses(operation: Operation) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, (text, content) in operation.answers.items():
        answers[str(status)] = {"description": text} | ({"content": _content(content)} if content else {})
    links = {"links": operation.links} if operation.links else {}
    answers = {status: answer | links for status, answer in answers.items()}
    errors = (
        set(operation.errors) | (set() if operation.open else {401}) | ({400, 408, 413} if operation.body else set())
    )
    return answers | {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(errors)}


def _content(kind: Any) -> dict[str, Any]:
    """A struct or a list of structs is JSON; a string is a content type of its own."""
    if isinstance(kind, str):
        return {kind: {"schema": {"type": "string"}}}
    [schema], _ = msgspec.json.schema_components((kind,), ref_template=_REFERENCE)
    return {_JSON: {"schema": schema}}


def _error(status: int, text: str) -> dict[str, Any]:
    side = "X-Stoker-Error"
    headers = {side: {"description": "`client; CODE` or `platform; CODE`", "schema": {"type": "string"}}}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string", "const": 'Basic realm="Restricted"'}}
    return {"description": text, "headers": headers, "content": {"text/plain": {"schema": {"type": "string"}}}}


def _schemas() -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(STRUCTS, ref_template=_REFERENCE)
    for name, schema in schemas.items():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
        for field, narrowed in NARROWED.get(name, {}).items():
            schema["properties"][field] |= narrowed
        schema["required"] = [*schema["required"], *REQUIRED.get(name, ())]
    return schemas


ROUTES = (web.get("/openapi.json", show_description),)
