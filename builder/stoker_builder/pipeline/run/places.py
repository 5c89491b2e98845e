"""Where something stands in the stack file, for messages of checks that know its key only."""

from __future__ import annotations

import re
from typing import Final

from stoker_sdk.document import Value, compose
from stoker_sdk.errors import StokerError

_MESSAGE: Final = re.compile(r"([^:\s]+): ([A-Za-z_][\w.\-\[\]]*): ", re.ASCII)
_STEP: Final = re.compile(r"([\w-]+)|\[(\d+)\]", re.ASCII)


def with_place(message: str, file: str, text: str) -> str:
    """`FILE: KEY: why` becomes `FILE:LINE:COLUMN: KEY: why`; any other message stays as it is."""
    match = _MESSAGE.match(message)
    if match is None or match[1] != file:
        return message
    try:
        root = compose(text, file)
        value = _found(root, match[2]) if root is not None else None
    except StokerError:
        return message
    if value is None:
        return message
    return f"{file}:{value.place.line + 1}:{value.place.column + 1}: {message[match.end(1) + 2 :]}"


def _found(root: Value, key: str) -> Value | None:
    """The value at the key, or the last one on the way there; None where not even the first step leads anywhere."""
    value = root
    for name, index in _STEP.findall(key):
        if index and value.is_list:
            following = dict(enumerate(value.items())).get(int(index))
        else:
            following = value.entries().get(name) if value.is_mapping else None
        if following is None:
            break
        value = following
    return None if value is root else value
