"""JSON as Go's decoder reads it, which is what the contract's clients were written against (section 2.1).

Keys match in any case, unknown keys are ignored, and `null` counts as missing. A missing text is empty, as
Go's zero value is. Types are strict: a number is no text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from stoker_sdk.errors import BadInput

T = TypeVar("T", bound=msgspec.Struct)


def decode(kind: type[T], body: bytes) -> T:
    """The body as a struct of this kind. Raises `BadInput` that says where it went wrong, not the value."""
    if not body.strip():
        raise BadInput("the request has no body: send JSON")
    try:
        value = msgspec.json.decode(body)
        return msgspec.convert(_reader(kind)({} if value is None else value), kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput(f"the body is not the JSON that is expected here: {error}") from None
    except RecursionError:
        raise BadInput("the body is not the JSON that is expected here: it is nested too deep") from None


@cache
def _reader(kind: type[msgspec.Struct]) -> Callable[[Any], Any]:
    described = inspect.type_info(kind)
    return lambda value: _as_go_reads(value, described)


def _as_go_reads(value: Any, wanted: inspect.Type) -> Any:
    if isinstance(wanted, inspect.UnionType) and value is not None:
        wanted = next(one for one in wanted.types if not isinstance(one, inspect.NoneType))
    if isinstance(wanted, inspect.StructType) and isinstance(value, dict):
        return _fields(value, wanted)
    if isinstance(wanted, inspect.DictType) and isinstance(value, dict):
        return {key: _element(one, wanted.value_type) for key, one in value.items()}
    if isinstance(wanted, inspect.ListType) and isinstance(value, list):
        return [_element(one, wanted.item_type) for one in value]
    return value


def _fields(value: dict[str, Any], wanted: inspect.StructType) -> dict[str, Any]:
    by_key = {field.encode_name.casefold(): field for field in wanted.fields}
    read: dict[str, Any] = {
        field.encode_name: "" for field in wanted.fields if field.required and isinstance(field.type, inspect.StrType)
    }
    for key, one in value.items():
        field = by_key.get(key.casefold())
        if field is not None and one is not None:
            read[field.encode_name] = _as_go_reads(one, field.type)
    return read


def _element(value: Any, wanted: inspect.Type) -> Any:
    """Within a list or a map `null` is the zero value of what stands there."""
    if value is None and isinstance(wanted, inspect.StrType):
        return ""
    if value is None and isinstance(wanted, inspect.StructType):
        return _fields({}, wanted)
    return _as_go_reads(value, wanted)
