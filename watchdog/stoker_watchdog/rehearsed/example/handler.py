"""A handler of the larger shape."""

from __future__ import annotations


def handle(event: object, context: object) -> str:
    return "hello"
