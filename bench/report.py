"""The figures, their thresholds, the table at the end, and the files that tools read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OUT = Path(__file__).parent / "out"
LATEST = OUT / "latest.json"
DETAILS = OUT / "details.json"


@dataclass(frozen=True)
class Threshold:
    """What a figure must reach: at least `limit`, or at most."""

    limit: float
    at_most: bool = False
    unit: str = ""

    def met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}{self.unit}"


THRESHOLDS: Mapping[str, Threshold] = {
    "proxy_vs_nginx": Threshold(0.50),
    "proxy_vs_aiohttp": Threshold(3.0),
    "proxy_p99_vs_nginx": Threshold(2.0, at_most=True),
    "python_vs_flask": Threshold(4.0),
    "replica_vs_uvicorn": Threshold(1.0),
    "wake_p50_ms": Threshold(10, at_most=True, unit=" ms"),
    "wake_p99_ms": Threshold(30, at_most=True, unit=" ms"),
    "wake_pandas_p50_ms": Threshold(15, at_most=True, unit=" ms"),
    "replica_uss_mb": Threshold(4, at_most=True, unit=" MB"),
    "idle_pss_mb": Threshold(160, at_most=True, unit=" MB"),
    "functions_1000_mb": Threshold(20, at_most=True, unit=" MB"),
    "list_1000_ms": Threshold(200, at_most=True, unit=" ms"),
}


@dataclass(frozen=True)
class Figure:
    """One measured value, with what was measured for it and beside it in words."""

    key: str
    value: float
    ours: str
    peer: str

    @property
    def threshold(self) -> Threshold:
        return THRESHOLDS[self.key]

    @property
    def ok(self) -> bool:
        return self.threshold.met(self.value)


def table(figures: Sequence[Figure], missing: Iterable[str]) -> str:
    """The figures as aligned lines; `missing` are those that could not be measured."""
    rows = [("figure", "value", "threshold", "ok?", "measured", "peer, in the same run")]
    for figure in figures:
        value = f"{figure.value:.2f}{figure.threshold.unit}"
        ok = "yes" if figure.ok else "NO"
        rows.append((figure.key, value, str(figure.threshold), ok, figure.ours, figure.peer))
    rows += [(key, "-", str(THRESHOLDS[key]), "-", "could not be measured", "") for key in missing]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:]])


def write(figures: Sequence[Figure], *, merge: bool) -> None:
    """`latest.json` has one number for each figure, `details.json` what it was made of. `merge` keeps older ones."""
    details = {
        figure.key: {
            "value": figure.value,
            "threshold": str(figure.threshold),
            "ok": figure.ok,
            "measured": figure.ours,
            "peer": figure.peer,
        }
        for figure in figures
    }
    OUT.mkdir(exist_ok=True)
    _merge(LATEST, {figure.key: round(figure.value, 3) for figure in figures}, merge)
    _merge(DETAILS, details, merge)


def _merge(path: Path, new: Mapping[str, object], merge: bool) -> None:
    old = json.loads(path.read_text()) if merge and path.exists() else {}
    values = {key: value for key, value in {**old, **new}.items() if key in THRESHOLDS}
    path.write_text(json.dumps({key: values[key] for key in THRESHOLDS if key in values}, indent=1) + "\n")
