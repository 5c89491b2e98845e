"""How results are printed: plain columns for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


def print_json(value: Any) -> None:
    """Any msgspec value as indented JSON."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, two spaces apart."""
    for line in table_lines(header, rows):
        click.echo(line)


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table. What is not printable becomes a space: cells may be a stranger's text."""
    rows = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
