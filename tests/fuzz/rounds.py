"""One round of hypothesis, without pytest: another seed each time, nothing remembered, everything told."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Verbosity, given, seed, settings
from hypothesis import strategies as st


def play(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], examples: int) -> int:
    """Raises what `check` raises, for the smallest value that was found; returns how many values were tried."""
    tried = 0

    @seed(random.getrandbits(64))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        verbosity=Verbosity.normal,
        suppress_health_check=list(HealthCheck),
    )
    @given(value=strategy)
    def test(value: Any) -> None:
        nonlocal tried
        tried += 1
        check(value)

    test()
    return tried
