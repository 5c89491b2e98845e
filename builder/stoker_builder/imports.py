"""Which packages may be imported before a function is: answered by its source, without running a line of it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

from stoker_builder.source import parse
from stoker_builder.tree import files_below

_MOST: Final = 50
_SETTINGS_OF_PYTEST: Final = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
"""They may turn a warning of an import into a failure, or look for a package that is not imported yet."""


def modules_ahead(handler: Path, environment: Path) -> tuple[str, ...]:
    """Top-level modules of the installed packages that the handler folder's files import first of all. None where it
    could make a difference that they are there already.
    """
    if any((handler / name).exists() for name in _SETTINGS_OF_PYTEST) or _has_plugins(environment):
        return ()
    found: set[str] = set()
    for path in files_below(handler):
        if path.suffix == ".py":
            body = parse(path, handler).body
            if not _only_defines(body):
                return ()
            found |= _imported(body)
    return tuple([name for name in sorted(found) if _is_in(environment, name)][:_MOST])


def _is_in(environment: Path, name: str) -> bool:
    return (environment / name / "__init__.py").is_file() or (environment / f"{name}.py").is_file()


def _has_plugins(environment: Path) -> bool:
    """Of pytest, which must be the first to import them: it rewrites their assertions."""
    return any(b"pytest11" in path.read_bytes() for path in environment.glob("*.dist-info/entry_points.txt"))


def _imported(body: list[ast.stmt]) -> set[str]:
    """First words of the absolute names."""
    found: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            found.add(statement.module.partition(".")[0])
    return found


def _only_defines(body: list[ast.stmt]) -> bool:
    """Whether the module does nothing, as far as its top level shows, that a package imported later would notice: no
    call by itself (`monkey.patch_all()`), nothing set elsewhere (`os.environ["X"] = "1"`), nothing called between
    imports.
    """
    called = False
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            if called:
                return False
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            called = called or bool(statement.decorator_list)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if not all(isinstance(target, ast.Name) for target in targets):
                return False
            called = called or any(isinstance(node, ast.Call) for node in ast.walk(statement))
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            return False
    return True
