"""What the process of a run tells the pipeline, and the one question that it asks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from stoker_builder.pipeline.job import Answer, Report
from stoker_sdk.runs import FunctionResult


class Teller:
    """Writes reports, and keeps the results that they carry. `functions` is in the stack's order."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._functions: dict[str, FunctionResult] = {}
        self._seconds: dict[str, float] = {}

    def log(self, text: str, function: str = "") -> None:
        self._send(Report(line=text or " ", function=function))

    def log_of(self, function: str) -> Callable[[str], None]:
        return lambda text: self.log(text, function)

    def result(self, name: str, **changes: Any) -> None:
        """Something of a function's result is new."""
        self._functions[name] = msgspec.structs.replace(self._functions.get(name) or FunctionResult(name), **changes)
        self._tell()

    def expect(self, results: list[FunctionResult]) -> None:
        """These functions there will be."""
        self._functions = {result.name: result for result in results}
        self._tell()

    def has_failed(self) -> list[FunctionResult]:
        return [result for result in self._functions.values() if result.state == "failed"]

    @contextmanager
    def timed(self, stage: str, function: str = "") -> Iterator[None]:
        """Note how long a stage took, of the run or of one function."""
        begun = time.monotonic()
        try:
            yield
        finally:
            took = round(time.monotonic() - begun, 3)
            if function in self._functions:
                self._note(function, {stage: took})
            else:
                self._seconds[stage] = took

    def split(self, stage: str, parts: Mapping[str, float], function: str) -> None:
        """Parts of a stage's time become stages of their own."""
        took = self._functions[function].seconds[stage] - sum(parts.values())
        self._note(function, {stage: round(max(0.0, took), 3), **parts})

    def _note(self, function: str, seconds: Mapping[str, float]) -> None:
        known = self._functions[function]
        self._functions[function] = msgspec.structs.replace(known, seconds={**known.seconds, **seconds})

    def may_deploy(self) -> str:
        """Why not; empty for yes. Waits for the pipeline's answer."""
        self._send(Report(may_deploy=True, seconds=self._seconds))
        line = sys.stdin.buffer.readline()
        return msgspec.json.decode(line, type=Answer).stop if line else "the pipeline has ended"

    def end(self, state: str, reason: str) -> None:
        self._send(Report(state=state, reason=reason, seconds=self._seconds, functions=list(self._functions.values())))

    def _tell(self) -> None:
        self._send(Report(functions=list(self._functions.values())))

    def _send(self, report: Report) -> None:
        data = msgspec.json.encode(report) + b"\n"
        while data:
            data = data[os.write(self._descriptor, data) :]
