"""Questions about a handler's source, answered without running a line of it."""

from __future__ import annotations

import ast
import fnmatch
import warnings
from collections.abc import Iterator
from pathlib import Path

from stoker_builder.tree import files_below
from stoker_sdk.errors import BadInput

ENTRY = "handle"

TESTS = ("*_test.py", "test_*.py")


def is_test(path: Path) -> bool:
    """Whether pytest takes the file for tests."""
    return any(fnmatch.fnmatch(path.name, pattern) for pattern in TESTS)


def has_tests(folder: Path) -> bool:
    return any(is_test(path) for path in files_below(folder))


def check_syntax(folder: Path) -> None:
    """Raise `BadInput` with file and line for the first Python file below `folder` that does not compile."""
    for path in files_below(folder):
        if path.suffix == ".py":
            parse(path, folder)


def check_entry(folder: Path, module: str) -> None:
    """Raise `BadInput` unless `module` (`handler`, dots for folders) exists below `folder` and has
    `handle`.
    """
    path = _module_file(folder, module)
    if path is None:
        raise BadInput(f"{module.replace('.', '/')}.py is missing in the handler folder: it must define {ENTRY}")
    if not defines(parse(path, folder), ENTRY):
        raise BadInput(
            f"{path.relative_to(folder)} does not define {ENTRY}: write `def {ENTRY}(req):` or "
            f"`def {ENTRY}(event, context):` at its top level"
        )


def defines(module: ast.Module, name: str) -> bool:
    """Whether the module binds `name` at its top level; `import *` may, and counts."""
    return any(name in _bound(statement) or "*" in _bound(statement) for statement in _top_level(module.body))


def _module_file(folder: Path, module: str) -> Path | None:
    base = folder / module.replace(".", "/")
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def parse(path: Path, folder: Path) -> ast.Module:
    """Raises `BadInput` with file and line."""
    shown = path.relative_to(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(path.read_bytes(), str(shown), "exec", dont_inherit=True)
            return ast.parse(path.read_bytes(), str(shown))
    except SyntaxError as error:
        raise BadInput(f"{shown}:{error.lineno or 1}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"{shown}:1: this is not Python that can be compiled ({error})") from error


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run at import, also those inside `if`, `try` and `with`."""
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try | ast.With):
                yield from _top_level(getattr(statement, field, []))
        if isinstance(statement, ast.Try):
            for handler in statement.handlers:
                yield from _top_level(handler.body)


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.Assign):
        return {node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)}
    if isinstance(statement, ast.AnnAssign) and statement.value and isinstance(statement.target, ast.Name):
        return {statement.target.id}
    return set()
