"""Which release of Stoker this is, as the package that was installed says."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    try:
        return version("stoker")
    except PackageNotFoundError:
        return "unreleased"  # started from its sources
