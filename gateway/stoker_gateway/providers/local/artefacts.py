"""The artefacts that the builder left in the data folder, found by the image reference that names their digest."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput
from stoker_sdk.function import LOCAL_REGISTRY

_REFERENCE = re.compile(re.escape(LOCAL_REGISTRY) + r"/[a-z0-9][-a-z0-9.]*@sha256:([0-9a-f]{64})")

MODES = ("python", "native")
"""What the watchdog can run here."""


class Artefact(msgspec.Struct, frozen=True):
    """`artefact.json`. `environment` is the hex digest of a folder of packages, or empty.

    `handler` is the module of mode `python`, `fprocess` the command of every other mode.
    """

    name: str
    mode: str = "python"
    handler: str = "function.handler"
    environment: str = ""
    template: str = ""
    fprocess: str = ""


def digest_of(image: str) -> str:
    """The hex digest in a local image reference. Raises `BadInput` for any other image."""
    match = _REFERENCE.fullmatch(image)
    if match is None:
        raise BadInput(
            f"image {image[:200]!r} cannot run on this machine without containers: build the function here "
            f"(`stoker up`, `stoker build`), which answers an image {LOCAL_REGISTRY}/NAME@sha256:…"
        )
    return match.group(1)


def read_manifest(folder: Path) -> Artefact:
    """The description in an artefact's folder. Raises `OSError`, `msgspec.DecodeError`."""
    return msgspec.json.decode((folder / "artefact.json").read_bytes(), type=Artefact)


def read_artefact(data: DataDir, image: str) -> tuple[str, Artefact]:
    """The digest and description of an artefact. Raises `BadInput` when it is not here or cannot be run here."""
    digest = digest_of(image)
    try:
        artefact = read_manifest(data.artefact(digest))
    except FileNotFoundError:
        raise BadInput(f"image {image!r} is not on this machine: build it here with `stoker build`") from None
    except (OSError, msgspec.DecodeError) as error:
        raise BadInput(f"image {image!r} cannot be read: {error}; build it again with `stoker build`") from error
    if artefact.mode not in MODES:
        raise BadInput(f"image {image!r} is for the mode {artefact.mode!r}, which cannot run here yet")
    return digest, artefact
