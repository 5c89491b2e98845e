"""Several functions at the same time, their results in the order of the stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from stoker_sdk.stack import StackFunction

T = TypeVar("T")


def each(functions: Sequence[StackFunction], work: Callable[[StackFunction], T], parallel: int) -> Iterator[T]:
    """The results in order; the first failure is raised, and what has not begun by then does not begin."""
    if parallel == 1 or len(functions) < 2:
        yield from map(work, functions)
        return
    with ThreadPoolExecutor(min(parallel, len(functions)), "build") as pool:
        futures = [pool.submit(work, function) for function in functions]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
