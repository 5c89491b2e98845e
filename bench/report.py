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
    "fork_vs_loop": Threshold(0.8),
    "node_vs_http": Threshold(0.7),
    "go_vs_http": Threshold(0.7),
    "wake_p50_ms": Threshold(10, at_most=True, unit=" ms"),
    "wake_p99_ms": Threshold(30, at_most=True, unit=" ms"),
    "wake_pandas_p50_ms": Threshold(15, at_most=True, unit=" ms"),
    "replica_uss_mb": Threshold(4, at_most=True, unit=" MB"),
    "idle_pss_mb": Threshold(160, at_most=True, unit=" MB"),
    "async_accept_vs_publish": Threshold(0.5),
    "async_accept_vs_publish_relaxed": Threshold(0.5),
    "async_drain_vs_sync": Threshold(0.4),
    "functions_1000_mb": Threshold(20, at_most=True, unit=" MB"),
    "list_1000_ms": Threshold(200, at_most=True, unit=" ms"),
    "pod_vs_service": Threshold(0.95),
    "deploy_vs_kubectl": Threshold(1.1, at_most=True),
    "push_vs_docker": Threshold(0.5, at_most=True),
    "pushes_p99": Threshold(1.5, at_most=True),
    "dev_reload_p95_ms": Threshold(300, at_most=True, unit=" ms"),
}


@dataclass(frozen=True)
class Figure:
    """One measured value; what was measured for it and beside it, in a word each; and `note`, what else was seen."""

    key: str
    value: float
    ours: str
    peer: str
    note: str = ""

    @property
    def threshold(self) -> Threshold:
        return THRESHOLDS[self.key]

    @property
    def ok(self) -> bool:
        return self.threshold.met(self.value)


def table(figures: Sequence[Figure], missing: Iterable[str]) -> str:
    """The figures as aligned lines, then their notes; `missing` are those that could not be measured."""
    rows = [("figure", "ours", "peer, in the same run", "value", "threshold", "ok?")]
    rows += [_row(figure) for figure in figures]
    rows += [(key, "could not be measured", "", "-", str(THRESHOLDS[key]), "NO") for key in missing]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    notes = [f"{figure.key}: {figure.note}" for figure in figures if figure.note]
    return "\n".join(line.rstrip() for line in [*lines, *([""] if notes else []), *notes])


def _row(figure: Figure) -> tuple[str, str, str, str, str, str]:
    value = f"{figure.value:.2f}{figure.threshold.unit}"
    return (figure.key, figure.ours, figure.peer, value, str(figure.threshold), "yes" if figure.ok else "NO")


def write(figures: Sequence[Figure], *, forget: Iterable[str]) -> None:
    """`latest.json` has one number for each figure, `details.json` what it was made of.

    Figures that are in there already stay, but for those in `forget`, which were tried in vain.
    """
    OUT.mkdir(exist_ok=True)
    _merge(LATEST, {figure.key: round(figure.value, 3) for figure in figures}, set(forget))
    _merge(DETAILS, {figure.key: _details(figure) for figure in figures}, set(forget))


def _details(figure: Figure) -> dict[str, object]:
    return {
        "value": figure.value,
        "threshold": str(figure.threshold),
        "ok": figure.ok,
        "ours": figure.ours,
        "peer": figure.peer,
        "note": figure.note,
    }


def _merge(path: Path, new: dict[str, object], forget: set[str]) -> None:
    old = json.loads(path.read_text()) if path.exists() else {}
    values = {key: value for key, value in old.items() if key not in forget} | new
    ordered = {key: values[key] for key in THRESHOLDS if key in values}
    path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
