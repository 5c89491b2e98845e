"""A YAML document whose every value knows its file, line, column and key.

A loaded dict has forgotten where its values stood and what they looked like (`1.0`, `on`, `012`). The
composed nodes still know both, so an error can point at the place, and scalars keep their literal text
(contract section 9.1).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import yaml

from stoker_sdk.errors import BadInput

MAX_BYTES = 1 << 20
"""A stack file is a few kilobytes. The limit keeps a wrong file, or a hostile one, from costing minutes of
parsing.
"""

MAX_VALUES = 20_000
"""Values that reading one document may visit. Aliases make few bytes stand for many values."""

_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_KINDS = {yaml.ScalarNode: "a single value", yaml.MappingNode: "a mapping", yaml.SequenceNode: "a list"}


@dataclass
class Reading:
    """One pass over one document: the file's name for messages, the warnings so far, and what is left to
    visit.
    """

    file: str
    warnings: list[str] = field(default_factory=list)
    left: int = MAX_VALUES

    def visit(self, node: yaml.Node, key: str, place: yaml.Mark | None = None) -> Value:
        self.left -= 1
        value = Value(self, node, key, place or node.start_mark)
        if self.left < 0:
            raise value.error(f"the file stands for more than {MAX_VALUES} values: write less, or fewer aliases")
        return value


@dataclass(frozen=True)
class Value:
    """One value: `key` is its dotted path (`functions.greet.labels`), empty for the whole document.

    `place` is where a person looks for it: at its key, if it has one.
    """

    reading: Reading
    node: yaml.Node
    key: str
    place: yaml.Mark

    def error(self, why: str) -> BadInput:
        """A `BadInput` that reads `FILE:LINE:COLUMN: KEY: WHY`."""
        return BadInput(self._located(why))

    def warn(self, why: str) -> None:
        self.reading.warnings.append(self._located(why))

    @property
    def is_empty(self) -> bool:
        """Nothing was written, or `null` or `~`."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == _NULL

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        return isinstance(self.node, yaml.SequenceNode)

    def text(self) -> str:
        """The literal text of a scalar: `1.0`, `true` and `on` stay what they are. Null is empty."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self._wrong_kind("a single value")
        return "" if self.is_empty else str(self.node.value)

    def flag(self) -> bool:
        text = self.text()
        if text not in ("true", "True", "TRUE", "false", "False", "FALSE", ""):
            raise self.error(f"must be true or false, and is {text[:40]!r}")
        return text.lower() == "true"

    def items(self) -> Iterator[Value]:
        """The entries of a list; none for null. Their key is `KEY[INDEX]`."""
        if self.is_empty:
            return
        if not isinstance(self.node, yaml.SequenceNode):
            raise self._wrong_kind("a list")
        for index, node in enumerate(self.node.value):
            yield self.reading.visit(node, f"{self.key}[{index}]")

    def texts(self) -> tuple[str, ...]:
        return tuple(value.text() for value in self.items())

    def entries(self, merges: int = 0) -> dict[str, Value]:
        """The entries of a mapping, merges (`<<`) resolved; none for null. Duplicate keys are errors."""
        if merges > 20:
            raise self.error("has merges (<<) that are nested more than 20 deep")
        if self.is_empty:
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            raise self._wrong_kind("a mapping")
        merged: dict[str, Value] = {}
        own: dict[str, Value] = {}
        for key_node, node in self.node.value:
            if key_node.tag == _MERGE:
                merged = {**self._merged(node, merges + 1), **merged}
                continue
            key = self.reading.visit(key_node, self.key).text()
            path = f"{self.key}.{key}" if self.key else key
            value = self.reading.visit(node, path, key_node.start_mark)
            if key in own:
                raise value.error(f"is written twice, first in line {own[key].place.line + 1}")
            own[key] = value
        return {**merged, **own}

    def map_of_texts(self) -> dict[str, str]:
        return {key: value.text() for key, value in self.entries().items()}

    def known_entries(self, known: Iterable[str]) -> dict[str, Value]:
        """The entries, with a warning for each key that is not in `known`, naming the nearest one that is."""
        names = list(known)
        entries = self.entries()
        for key, value in entries.items():
            if key not in names:
                value.warn(f"is not a known key and is ignored{_nearest(key, names)}")
        return {key: value for key, value in entries.items() if key in names}

    def checked(self, check: Callable[..., object], *arguments: str) -> None:
        """Run a check that raises `BadInput`, and say in its error where the value stands."""
        try:
            check(*arguments)
        except BadInput as error:
            raise self.error(str(error)) from None

    def _merged(self, node: yaml.Node, merges: int) -> dict[str, Value]:
        """What `<<` brings in: one mapping, or a list of them, of which the first wins."""
        source = self.reading.visit(node, self.key)
        sources = list(source.items()) if isinstance(node, yaml.SequenceNode) else [source]
        merged: dict[str, Value] = {}
        for each in sources:
            merged = {**each.entries(merges), **merged}
        return merged

    def _wrong_kind(self, expected: str) -> BadInput:
        return self.error(f"must be {expected}, and is {_KINDS.get(type(self.node), 'something else')}")

    def _located(self, why: str) -> str:
        subject = f"{self.key}: " if self.key else ""
        return f"{self.reading.file}:{self.place.line + 1}:{self.place.column + 1}: {subject}{why}"


def compose(text: str, file: str) -> Value | None:
    """The document's root, or None when the text holds no document. Raises `BadInput` with the place."""
    if len(text) > MAX_BYTES:
        raise BadInput(f"{file}: is larger than {MAX_BYTES >> 20} MiB, too large for a stack file")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, file) from None
    except yaml.YAMLError as error:
        raise BadInput(f"{file}: is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise BadInput(f"{file}: is nested too deeply to be read") from None
    return None if node is None else Reading(file).visit(node, "")


def _syntax_error(error: yaml.MarkedYAMLError, file: str) -> BadInput:
    mark = error.problem_mark or error.context_mark
    place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
    context = f" ({error.context})" if error.context else ""
    return BadInput(f"{place}: is not YAML: {error.problem or 'it cannot be parsed'}{context}")


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"; the nearest known key is {close[0]!r}" if close else ""
