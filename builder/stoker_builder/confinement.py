"""What programs of a build may see of the platform's files."""

from __future__ import annotations

from pathlib import Path

from stoker_builder.config import Config
from stoker_builder.interpreter import Interpreter
from stoker_builder.own_files import OwnFiles, may_have_own_files, paths_in


def own_files_of(config: Config, interpreter: Interpreter) -> OwnFiles | None:
    """Programs see of the platform's the interpreter, packages, and the files that the index's settings name."""
    if config.ids is None or not may_have_own_files():
        return None
    data = config.data
    needed = (data.interpreter, data.environments, interpreter.python.parents[1], interpreter.uv)
    standard = tuple(Path(entry) for entry in interpreter.stdlib)
    return OwnFiles(data.builds, (*needed, *standard, *paths_in(config.index_environment.values())))
