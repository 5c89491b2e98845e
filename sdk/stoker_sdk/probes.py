"""How often a replica is asked for its health, and what its answers lead to: the contract's annotations.

`com.openfaas.ready.http.NAME` is for readiness (does it get calls), `com.openfaas.health.http.NAME` for liveness (is it
replaced). Times are whole seconds, or durations (`30s`), since both are in use. There is one hook, not a page, so the
two `path`s are not read; and as liveness is told from the same answers, its timeout and delay are checked and not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from stoker_sdk.errors import BadInput
from stoker_sdk.units import parse_duration

_READY = "com.openfaas.ready.http."
_ALIVE = "com.openfaas.health.http."
_LONGEST: Final = 3600.0
_SHORTEST: Final = 1.0
_MOST = 1000
_ALIVE_FAILURES = 30


DEFAULT_START_TIMEOUT: Final = 60.0
"""Seconds after which a replica that is not ready is taken for one that never will be."""


class Probes(msgspec.Struct, frozen=True):
    """Times in seconds. After `failures` bad answers in a row a replica gets no calls, after `successes` good ones it
    does again; after `replace_after` seconds without a good state it is replaced (0: never).
    """

    delay: float = 0.0
    period: float = 2.0
    timeout: float = 1.0
    failures: int = 3
    successes: int = 1
    replace_after: float = 60.0


def check_start_timeout(text: str) -> float:
    """Seconds that a replica may take until it is ready. Raises `BadInput`."""
    seconds = parse_duration(text, "start_timeout") if text else DEFAULT_START_TIMEOUT
    if not _SHORTEST <= seconds <= _LONGEST:
        raise BadInput(f"start_timeout is {text[:40]!r}: write a duration from 1s to 1h")
    return seconds


def check_deploy_deadline(text: str) -> float:
    """Seconds that a rollout may take on a cluster; 0 where nothing is said. Raises `BadInput`."""
    seconds = parse_duration(text, "deploy_deadline") if text else 0.0
    if text and not _SHORTEST <= seconds <= _LONGEST:
        raise BadInput(f"deploy_deadline is {text[:40]!r}: write a duration from 1s to 1h")
    return seconds


def parse_probes(annotations: Mapping[str, str] | None) -> Probes:
    """Raises `BadInput`, which names the annotation, for a value that cannot be used."""
    known = annotations or {}
    if not any(key.startswith((_READY, _ALIVE)) for key in known):
        return Probes()
    defaults = Probes()
    period = _seconds(known, _READY + "periodSeconds", defaults.period)
    return Probes(
        delay=_seconds(known, _READY + "initialDelaySeconds", defaults.delay, 0.0),
        period=period,
        timeout=_seconds(known, _READY + "timeoutSeconds", defaults.timeout),
        failures=_count(known, _READY + "failureThreshold", defaults.failures),
        successes=_count(known, _READY + "successThreshold", defaults.successes),
        replace_after=_replace_after(known, period),
    )


def _replace_after(known: Mapping[str, str], period: float) -> float:
    _seconds(known, _ALIVE + "initialDelaySeconds", 0.0, 0.0)
    _seconds(known, _ALIVE + "timeoutSeconds", 1.0)
    if _count(known, _ALIVE + "successThreshold", 1) != 1:
        raise BadInput(f"annotation {_ALIVE}successThreshold must be 1: one good answer is a sign of life")
    keys = (_ALIVE + "periodSeconds", _ALIVE + "failureThreshold")
    if not any(known.get(key) for key in keys):
        return Probes().replace_after
    return _seconds(known, keys[0], period) * _count(known, keys[1], _ALIVE_FAILURES, 0)


def _seconds(known: Mapping[str, str], key: str, default: float, least: float = _SHORTEST) -> float:
    text = known.get(key, "").strip()
    if not text:
        return default
    try:
        seconds = parse_duration(text)
    except BadInput:
        seconds = -1.0
    if not least <= seconds <= _LONGEST:
        raise BadInput(f"annotation {key} is {text[:40]!r}: write seconds from {least:g} to {_LONGEST:g}")
    return seconds


def _count(known: Mapping[str, str], key: str, default: int, least: int = 1) -> int:
    text = known.get(key, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= _MOST):
        raise BadInput(f"annotation {key} is {text[:40]!r}: write a whole number from {least} to {_MOST}")
    return int(text)
