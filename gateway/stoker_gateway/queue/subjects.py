"""Where what lies in JetStream: names of streams, subjects, and what is read from a subject.

The call's id is part of every subject, so that one call can be found, cancelled or replayed by the server's own index
of subjects; nothing of ours has to be kept in step with it.
"""

from __future__ import annotations

import re
from typing import Final

from stoker_sdk.names import FunctionKey

CALLS: Final = "stoker-calls"
OUTCOMES: Final = "stoker-outcomes"
ATTEMPTS: Final = "stoker-attempts"
DEAD: Final = "stoker-dead"
CALLBACKS: Final = "stoker-callbacks"
KEYS: Final = "stoker-keys"
ANSWERS: Final = "stoker-answers"
RESULTS: Final = "stoker-results"
BUCKET: Final = "stoker-bodies"
BODIES: Final = f"OBJ_{BUCKET}"

CANCEL: Final = "stoker.cancel"
"""Core NATS, to every worker: the call with this id is to stop."""
RUNNING: Final = "stoker.running"
"""Core NATS, asked of every worker: what do you run."""
BELLS: Final = "stoker.bell.*.*"
DOUBTS: Final = "stoker.doubt.*.*"

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_call_id(text: str) -> bool:
    """Whether the text can be the id of a stored call: it is a token of subjects and URLs."""
    return _ID.fullmatch(text) is not None


def call_subject(key: FunctionKey, id: str) -> str:
    return f"stoker.call.{key.namespace}.{key.name}.{id}"


def outcome_subject(key: FunctionKey, id: str) -> str:
    return f"stoker.outcome.{key.namespace}.{key.name}.{id}"


def attempt_subject(key: FunctionKey, id: str) -> str:
    return f"stoker.attempt.{key.namespace}.{key.name}.{id}"


def dead_subject(key: FunctionKey, id: str) -> str:
    """The request of a call that ended dead, for a replay."""
    return f"stoker.dead.{key.namespace}.{key.name}.{id}"


def callback_subject(key: FunctionKey, id: str) -> str:
    """The answer of a call that is still to be posted to its caller."""
    return f"stoker.callback.{key.namespace}.{key.name}.{id}"


def key_subject(key: FunctionKey, token: str) -> str:
    """What an `Idempotency-Key` is tied to; `token` is the hash of that."""
    return f"stoker.key.{key.namespace}.{key.name}.{token}"


def kept_answer_subject(key: FunctionKey, id: str) -> str:
    """The answer of a synchronous call with an `Idempotency-Key`."""
    return f"stoker.answer.{key.namespace}.{key.name}.{id}"


def result_subject(key: FunctionKey, id: str) -> str:
    """The answer of an async call, where it is kept."""
    return f"stoker.result.{key.namespace}.{key.name}.{id}"


def delivery_subject(key: FunctionKey, id: str) -> str:
    """What became of that callback so far."""
    return f"stoker.delivery.{key.namespace}.{key.name}.{id}"


def bell_subject(key: FunctionKey) -> str:
    """Core NATS: there are calls for this function, if a worker does not serve it yet."""
    return f"stoker.bell.{key.namespace}.{key.name}"


def doubt_subject(key: FunctionKey) -> str:
    """Core NATS, to every worker: this function's calls up to the sequence in the message may have ended."""
    return f"stoker.doubt.{key.namespace}.{key.name}"


def by_id(kind: str, id: str) -> str:
    """The filter for a call by its id alone; `kind` is call, outcome, attempt, dead or result."""
    return f"stoker.{kind}.*.*.{id}"


def of_functions(kind: str, namespace: str, name: str) -> str:
    """The filter for all of a namespace (empty: all) and function (empty: all)."""
    return f"stoker.{kind}.{namespace or '*'}.{name or '*'}.*"


def key_and_id(subject: str) -> tuple[FunctionKey, str] | None:
    """What a subject of ours says; None for a foreign one. Ids may hold no dot, so there are five parts."""
    parts = subject.split(".")
    if len(parts) != 5 or parts[0] != "stoker" or not is_call_id(parts[4]):
        return None
    return FunctionKey(parts[2], parts[3]), parts[4]


def consumer_name(key: FunctionKey) -> str:
    """Names of consumers have no dots. Neither part of a key has an underscore, so no two keys share a name."""
    return f"{key.namespace}_{key.name}"


def key_of_consumer(name: str) -> FunctionKey | None:
    """Whose consumer it is; None for a foreign one."""
    namespace, found, rest = name.partition("_")
    return FunctionKey(namespace, rest) if found and namespace and rest and "_" not in rest else None
