"""What follows an attempt of a stored call: it is done, tried again after a pause, or dead. Pure.

Who says how often: the function's own `retries` (`stoker.dev/retries`), else the contract's annotations (section
5.5), else the defaults: three attempts, on lost connections, 429, 502, 503 and 504. The pauses double; with the
defaults all of a pause is random, from 0 up to its cap, so that calls that failed together do not come back together.
Who has named times gets these times, less up to a fifth (D26).

An answer of the platform itself, or of a function that is merely not ready, is no attempt: nothing has run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final, Literal, TypeVar

import msgspec

from stoker_sdk.errors import BadInput
from stoker_sdk.faults import fault_code
from stoker_sdk.function import ANNOTATION_PREFIX
from stoker_sdk.settings import Retries
from stoker_sdk.units import parse_duration

CONTRACT_PREFIX: Final = "com.openfaas.retry."
MOST_ATTEMPTS: Final = 101
LONGEST_WAIT: Final = 86400.0
"""Seconds that no pause exceeds, whoever asks for it."""
LONGEST_RETRY_AFTER: Final = 3600.0
"""Seconds that a function may ask for with `Retry-After`, unless its own longest pause is longer."""

NOT_READY: Final = frozenset({"timeout-waiting", "unhealthy", "max-inflight"})
"""Codes of `X-Stoker-Error` of functions that have not run the call, and may run it later."""
GONE: Final = "unknown-function"

_STATUS_OF_REASON: Final = {"error": 502, "connect": 502, "timeout": 504}
_WAIT_STATUSES: Final = frozenset({429, 502, 503, 504})
_RETRY_AFTER_STATUSES: Final = frozenset({429, 503})
_SPREAD_OF_NAMED_TIMES: Final = 0.2
_FIRST_WAIT, _LONGEST_PAUSE_OF_WAITS = 0.5, 10.0
_CODES = re.compile(r"[1-5]\d\d", re.ASCII)
_Value = TypeVar("_Value")

Outcome = int | Literal["error"]
"""The status of the answer; `error` if there was none."""


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """`attempts` in all; pauses in seconds, from `first` up to `most`, of which the share `spread` is random."""

    attempts: int = 3
    first: float = 1.0
    most: float = 120.0
    on: frozenset[int] = frozenset({429, 502, 503, 504})
    on_error: bool = True
    spread: float = 1.0


DEFAULTS: Final = RetrySettings()


@dataclass(frozen=True, slots=True)
class Done:
    """The function has answered, and that is the outcome."""

    status: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt, after so many seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Wait:
    """The same attempt again after so many seconds: nothing has run."""

    delay: float


@dataclass(frozen=True, slots=True)
class Dead:
    """No further attempt; the reason is for people."""

    reason: str


Decision = Done | Retry | Wait | Dead


def decide(
    attempt: int,
    outcome: Outcome,
    retry_after: float | None,
    settings: RetrySettings,
    rng: Random,
    *,
    stoker_error: str = "",
    waits: int = 0,
) -> Decision:
    """What follows attempt number `attempt` (the first is 1).

    `retry_after`: seconds, see `retry_after_seconds`. `stoker_error`: the answer's `X-Stoker-Error`. `waits`: how many
    times in a row this attempt was told to wait already; the pauses grow with it.
    """
    if _nothing_ran(outcome, stoker_error):
        return Wait(_wait(waits, retry_after, rng))
    if is_gone(outcome, stoker_error):
        return Dead("the function was removed: deploy it and replay the call")
    if not _is_retried(outcome, settings):
        return Dead("the function gave no answer") if outcome == "error" else Done(outcome)
    if attempt >= settings.attempts:
        return Dead(_exhausted(outcome, attempt))
    if retry_after is not None and outcome in _RETRY_AFTER_STATUSES:
        return Retry(min(max(retry_after, settings.first), max(settings.most, LONGEST_RETRY_AFTER)))
    return Retry(pause(attempt, settings, rng))


def is_gone(outcome: Outcome, stoker_error: str) -> bool:
    """Whether there is no such function."""
    return outcome == 404 and fault_code(stoker_error) == GONE


def cap(attempt: int, settings: RetrySettings) -> float:
    """The longest pause in seconds after attempt number `attempt`, without `Retry-After`."""
    return min(settings.most, settings.first * 2.0 ** min(attempt - 1, 64))


def pause(attempt: int, settings: RetrySettings, rng: Random) -> float:
    """The pause in seconds after attempt number `attempt`."""
    return cap(attempt, settings) * (1 - settings.spread * rng.random())


def retry_after_seconds(text: str, now: float) -> float | None:
    """Seconds from `now` (Unix time) that a `Retry-After` asks for, a number or an HTTP date; None if it is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 10 else LONGEST_WAIT
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def settings_of(annotations: Mapping[str, str]) -> RetrySettings:
    """How a function's calls are repeated. What cannot be read counts as not there (section 5.5)."""
    return _with_ours(_with_contract(DEFAULTS, annotations), annotations.get(ANNOTATION_PREFIX + "retries", ""))


def _nothing_ran(outcome: Outcome, stoker_error: str) -> bool:
    if outcome not in _WAIT_STATUSES:
        return False
    return stoker_error.partition(";")[0].strip() == "platform" or fault_code(stoker_error) in NOT_READY


def _wait(waits: int, retry_after: float | None, rng: Random) -> float:
    """Half of it is random: many calls wait for the same thing."""
    longest = min(_LONGEST_PAUSE_OF_WAITS, _FIRST_WAIT * 2.0 ** min(waits, 64))
    asked = min(retry_after or 0.0, _LONGEST_PAUSE_OF_WAITS)
    return max(asked, longest * (1 - 0.5 * rng.random()))


def _is_retried(outcome: Outcome, settings: RetrySettings) -> bool:
    return settings.on_error if outcome == "error" else outcome in settings.on


def _exhausted(outcome: Outcome, attempt: int) -> str:
    what = "no answer" if outcome == "error" else f"status {outcome}"
    return f"{what} at the last of {attempt} attempts" if attempt > 1 else f"{what}, and one attempt was allowed"


def _with_contract(settings: RetrySettings, annotations: Mapping[str, str]) -> RetrySettings:
    attempts = _read(_attempts, annotations.get(CONTRACT_PREFIX + "attempts"))
    codes = _read(_codes, annotations.get(CONTRACT_PREFIX + "codes"))
    least = _read(_seconds, annotations.get(CONTRACT_PREFIX + "min_wait"))
    most = _read(_seconds, annotations.get(CONTRACT_PREFIX + "max_wait"))
    settings = replace(
        settings,
        attempts=settings.attempts if attempts is None else attempts,
        on=settings.on if codes is None else codes,
    )
    return _with_times(settings, least, most)


def _with_ours(settings: RetrySettings, text: str) -> RetrySettings:
    try:
        ours = msgspec.json.decode(text, type=Retries)
    except (msgspec.DecodeError, RecursionError):
        return settings
    if not 0 <= ours.max < MOST_ATTEMPTS:
        return settings
    settings = replace(settings, attempts=ours.max + 1)
    if ours.on:
        settings = replace(settings, on=_statuses(ours.on), on_error=not {"error", "connect"}.isdisjoint(ours.on))
    return _with_times(settings, _read(_seconds, ours.backoff), _read(_seconds, ours.max_backoff))


def _with_times(settings: RetrySettings, first: float | None, most: float | None) -> RetrySettings:
    """Times that contradict each other count as not there."""
    if (first is None and most is None) or (first is not None and most is not None and first > most):
        return settings
    if first is None:
        first = min(settings.first, most or 0.0)
    if most is None:
        most = max(settings.most, first)
    return replace(settings, first=first, most=most, spread=_SPREAD_OF_NAMED_TIMES)


def _statuses(reasons: list[str]) -> frozenset[int]:
    """A lost connection to a replica is the proxy's 502, a call that took too long its 504."""
    found: set[int] = set()
    for reason in reasons:
        if reason in _STATUS_OF_REASON:
            found.add(_STATUS_OF_REASON[reason])
        elif reason in ("4xx", "5xx"):
            found.update(range(int(reason[0]) * 100, int(reason[0]) * 100 + 100))
        elif _CODES.fullmatch(reason):
            found.add(int(reason))
    return frozenset(found)


def _read(read: Callable[[str], _Value], text: str | None) -> _Value | None:
    try:
        return read(text) if text else None
    except (BadInput, ValueError):
        return None


def _attempts(text: str) -> int:
    """No attempt at all would be a call that never runs: 0 means that nothing is repeated."""
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= MOST_ATTEMPTS):
        raise BadInput(f"attempts {text[:20]!r} is not a whole number up to {MOST_ATTEMPTS}")
    return max(1, int(text))


def _codes(text: str) -> frozenset[int]:
    codes = [code.strip() for code in text.split(",")]
    if not all(_CODES.fullmatch(code) for code in codes):
        raise BadInput(f"codes {text[:40]!r} are not statuses: write 429,503")
    return frozenset(map(int, codes))


def _seconds(text: str) -> float:
    seconds = parse_duration(text)
    if not math.isfinite(seconds) or seconds > LONGEST_WAIT:
        raise BadInput(f"{text[:20]!r} is longer than a day")
    return seconds
