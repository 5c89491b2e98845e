"""A function's history as one annotation of its Deployment.

There, rather than in ReplicaSets or ControllerRevisions, because it is then written with the Deployment in one request,
or not at all; every gateway has it by the watch that it keeps anyway; it goes with the function; and it needs no right
beyond those for Deployments. Old ReplicaSets would not do: two quick deploys make one, and a restart another.

Compressed, because revisions are much alike, and Kubernetes copies the annotations of a Deployment to its ReplicaSets.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import msgspec

from stoker_gateway.revisions import Kept

_MOST_TEXT = 64 * 1024 * 1024
"""Bytes that a history may have, unpacked: what has more is not ours."""


def packed(history: Sequence[Kept], room: int) -> str:
    """As many of the newest revisions as go into `room` bytes; empty if none does."""
    for start in range(len(history)):
        text = base64.b64encode(zlib.compress(msgspec.json.encode(history[start:]), 9)).decode()
        if len(text) <= room:
            return text
    return ""


def unpacked(text: str) -> list[Kept]:
    """Empty for what cannot be read: then only what the Deployment asks for now is known."""
    try:
        packer = zlib.decompressobj()
        return msgspec.json.decode(packer.decompress(base64.b64decode(text), _MOST_TEXT), type=list[Kept])
    except (ValueError, zlib.error, msgspec.DecodeError):
        return []
