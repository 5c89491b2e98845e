"""The watchdog and the HTTP engine as a wheel, for builds of images: the release that an image gets is then the one
that is installed here, and nothing is fetched under our name from an index.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.util import find_spec
from pathlib import Path

from stoker_sdk import __version__
from stoker_sdk.errors import NotFound

_PACKAGES = ("stoker_watchdog", "stoker_wire")
_KINDS = (".py", ".typed")
_INFO = f"stoker-{__version__}.dist-info"
_METADATA = f"Metadata-Version: 2.1\nName: stoker\nVersion: {__version__}\nLicense: MIT\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: stoker\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_runtime_wheel(folder: Path) -> Path:
    """Write it into the folder. The same release gives the same bytes, so that builds find their cache."""
    files = {name: path.read_bytes() for package in _PACKAGES for name, path in _files(package)}
    files |= {f"{_INFO}/METADATA": _METADATA.encode(), f"{_INFO}/WHEEL": _WHEEL.encode()}
    files[f"{_INFO}/RECORD"] = _record(files).encode()
    wheel = folder / f"stoker-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)  # of 1980, whenever it is made
            member.external_attr = 0o644 << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return wheel


def _files(package: str) -> list[tuple[str, Path]]:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise NotFound(f"the package {package} is not installed beside this command: install stoker anew")
    root = Path(found.submodule_search_locations[0])
    paths = sorted(path for path in root.rglob("*") if path.suffix in _KINDS)
    return [(f"{package}/{path.relative_to(root)}", path) for path in paths]


def _record(files: dict[str, bytes]) -> str:
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in sorted(files.items())]
    return "\n".join([*lines, f"{_INFO}/RECORD,,"]) + "\n"


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
