"""The settings of a function that are ours: their keys in stack.yml, and how they travel.

`timeout`, `start_timeout`, `deploy_deadline`, `concurrency`, `connections`, `result`, `idempotent` and `visibility`
are annotations with the text that was written; `schedule`, `routes` and `retries` are annotations with JSON in one
fixed shape, whatever short form the stack used; `scale` becomes the labels that the contract has for it (section 6.1),
so that every client sees the same truth in the same place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from stoker_sdk.addresses import METHODS, AskedRoute, check_route, check_visibility
from stoker_sdk.document import Value
from stoker_sdk.errors import BadInput
from stoker_sdk.keeping import check_idempotent, check_keep
from stoker_sdk.names import check_label
from stoker_sdk.probes import check_deploy_deadline, check_start_timeout
from stoker_sdk.schedule import MAX_SCHEDULES, SCHEDULE_CHECKS, SCHEDULE_KEYS, Schedule, check_schedule
from stoker_sdk.units import parse_duration

SETTINGS = (
    "timeout",
    "start_timeout",
    "deploy_deadline",
    "concurrency",
    "connections",
    "schedule",
    "routes",
    "retries",
    "result",
    "idempotent",
    "visibility",
)
"""Keys of a function that travel as annotations, so that other clients carry them untouched."""

SCALE_KEYS = ("min", "max", "target", "type", "target-proportion", "zero", "zero-duration", "factor", "down-window")
SCALE_LABEL = "com.openfaas.scale."
RETRY_REASONS = ("error", "timeout", "connect", "4xx", "5xx")
MAX_ENTRIES = MAX_SCHEDULES
"""Schedules or routes of one function."""

_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Retries(msgspec.Struct, omit_defaults=True, frozen=True):
    """How often a call is repeated (`max`), after which pause (Go durations), and on which outcomes."""

    max: int
    backoff: str = ""
    max_backoff: str = ""
    on: list[str] = []


def read_settings(values: Mapping[str, Value]) -> dict[str, str]:
    """The annotations (without prefix) for the keys that are there. Raises `BadInput` with the place."""
    present = {key: value for key, value in values.items() if key in _READERS and not value.is_empty}
    return {key: _READERS[key](value) for key, value in present.items()}


def read_scale(value: Value) -> dict[str, str]:
    """The labels that `scale` stands for. Raises `BadInput` with the place."""
    keys = value.known_entries(SCALE_KEYS)
    for key, entry in keys.items():
        entry.checked(_SCALE_CHECKS[key], entry.text())
        entry.checked(check_label, SCALE_LABEL + key, entry.text())
    texts = {key: entry.text().lower() if key == "zero" else entry.text() for key, entry in keys.items()}
    if "min" in texts and "max" in texts and int(texts["min"]) > int(texts["max"]):
        raise value.error(f"min is {texts['min']}, more than max ({texts['max']}): raise the one or lower the other")
    return {SCALE_LABEL + key.replace("down-window", "down.window"): text for key, text in texts.items()}


def _checked_text(check: Callable[[str], object]) -> Callable[[Value], str]:
    def read(value: Value) -> str:
        value.checked(check, value.text())
        return value.text()

    return read


def _schedules(value: Value) -> str:
    return _json([_schedule(item) for item in _one_or_many(value)])


def _schedule(value: Value) -> Schedule:
    keys = value.known_entries(SCHEDULE_KEYS) if value.is_mapping else {"cron": value}
    if "cron" not in keys:
        raise value.error('a schedule needs `cron`, such as "*/5 * * * *"')
    schedule = Schedule(**{key: entry.text() for key, entry in keys.items()})
    for key, check in SCHEDULE_CHECKS.items():
        if key in keys and not (keys[key].is_empty and key != "cron"):
            keys[key].checked(check, keys[key].text())
    value.checked(lambda: check_schedule(schedule))
    return schedule


def _routes(value: Value) -> str:
    return _json([_route(item) for item in _one_or_many(value)])


def _route(value: Value) -> AskedRoute:
    if not value.is_mapping:
        host, slash, rest = value.text().partition("/")
        route = AskedRoute(host.lower(), slash + rest)
    else:
        keys = value.known_entries(("host", "path", "methods"))
        texts = {key: entry.text() for key, entry in keys.items() if key != "methods"}
        methods = [_method(item) for item in keys["methods"].items()] if "methods" in keys else []
        route = AskedRoute(texts.get("host", "").lower(), texts.get("path", ""), methods)
    value.checked(lambda: check_route(route))
    return route


def _method(value: Value) -> str:
    method = value.text().upper()
    if method not in METHODS:
        raise value.error(f"{value.text()[:20]!r} is not one of {', '.join(METHODS)}")
    return method


def _retries(value: Value) -> str:
    keys = value.known_entries(("max", "backoff", "max_backoff", "on")) if value.is_mapping else {"max": value}
    if "max" not in keys:
        raise value.error("retries need `max`, the number of further attempts")
    keys["max"].checked(_check_retries, keys["max"].text())
    for key in ("backoff", "max_backoff"):
        if key in keys:
            keys[key].checked(parse_duration, keys[key].text())
    texts = {key: keys[key].text() for key in ("backoff", "max_backoff") if key in keys}
    if len(texts) == 2 and parse_duration(texts["backoff"]) > parse_duration(texts["max_backoff"]):
        raise keys["backoff"].error("is longer than max_backoff")
    on = [_reason(item) for item in keys["on"].items()] if "on" in keys else []
    return _json(Retries(int(keys["max"].text()), on=on, **texts))


def _reason(value: Value) -> str:
    text = value.text().lower()
    if text not in RETRY_REASONS and not re.fullmatch(r"[45]\d\d", text):
        raise value.error(f"{value.text()[:20]!r} is not a status (503) nor one of {', '.join(RETRY_REASONS)}")
    return text


def _one_or_many(value: Value) -> list[Value]:
    items = list(value.items()) if value.is_list else [value]
    if len(items) > MAX_ENTRIES:
        raise value.error(f"has {len(items)} entries, and {MAX_ENTRIES} are the most")
    return items


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _check_timeout(text: str) -> None:
    if parse_duration(text) > 365 * 86400:
        raise BadInput("timeout is longer than a year")


def _whole(what: str, least: int, most: int = 999_999_999) -> Callable[[str], None]:
    def check(text: str) -> None:
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise BadInput(f"{what} must be a whole number, and is {text[:40]!r}")
        if not least <= int(text) <= most:
            raise BadInput(f"{what} must be at least {least} and at most {most}, and is {text}")

    return check


def _check_min(text: str) -> None:
    _whole("scale.min", 0)(text)
    if int(text) == 0:
        raise BadInput("scale.min must be at least 1: for a function that may rest, write `zero: true`")


def _check_number(text: str) -> None:
    if not _NUMBER.fullmatch(text) or float(text) <= 0:
        raise BadInput(f"must be a number above 0, and is {text[:40]!r}")


def _check_flag(text: str) -> None:
    if text.lower() not in ("true", "false"):
        raise BadInput(f"must be true or false, and is {text[:40]!r}")


def _check_word(text: str) -> None:
    if not text:
        raise BadInput("must name what is measured, such as rps, capacity or cpu")
    check_label(SCALE_LABEL + "type", text)


_check_retries = _whole("retries", 0, 100)
_SCALE_CHECKS: dict[str, Callable[[str], object]] = {
    "min": _check_min,
    "max": _whole("scale.max", 1),
    "target": _whole("scale.target", 1),
    "type": _check_word,
    "target-proportion": _check_number,
    "zero": _check_flag,
    "zero-duration": parse_duration,
    "factor": _whole("scale.factor", 0, 100),
    "down-window": parse_duration,
}
_READERS: dict[str, Callable[[Value], str]] = {
    "timeout": _checked_text(_check_timeout),
    "start_timeout": _checked_text(check_start_timeout),
    "deploy_deadline": _checked_text(check_deploy_deadline),
    "concurrency": _checked_text(_whole("concurrency", 0)),
    "connections": _checked_text(_whole("connections", 1)),
    "schedule": _schedules,
    "routes": _routes,
    "retries": _retries,
    "result": _checked_text(check_keep),
    "idempotent": _checked_text(check_idempotent),
    "visibility": _checked_text(check_visibility),
}
