"""Makes the fork server's Python the functions' Python, once, so that forks inherit it and need not touch anything.

What is on `sys.path` afterwards is the standard library alone: the platform's own packages stay loaded and are not to
be found by name. Where the library is staged (the platform's interpreter lies where others cannot read it), loaded
packages are told so, and the folders are listed once here instead of in each replica.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from types import ModuleType

_NO_SUCH_MODULE = "stoker_asks_for_the_listing"


def use_library(executable: str, library: list[str]) -> None:
    """`library` holds the `sys.path` entries of the standard library, where every user can read them."""
    own = [path for path in sys.path if path and "site-packages" not in path and "dist-packages" not in path]
    sys.path[:] = library or [path for path in own if path.startswith((sys.base_prefix, sys.prefix))]
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, PathFinder]  # none that a package of ours has added
    _move_packages(sys.path)
    if executable:
        sys.executable = executable
    sys.path_importer_cache.clear()
    PathFinder.find_spec(_NO_SUCH_MODULE, sys.path)


def _move_packages(library: list[str]) -> None:
    """Loaded packages of the standard library find their other modules where it is staged."""
    home = os.path.dirname(os.__file__)
    staged = next((path for path in library if os.path.exists(f"{path}/os.py")), home)
    if staged == home:
        return
    for module in list(sys.modules.values()):
        path = vars(module).get("__path__") if isinstance(module, ModuleType) else None
        if isinstance(path, list):
            path[:] = [staged + entry[len(home) :] if entry.startswith(home + os.sep) else entry for entry in path]
