"""The artefacts that the builder left in the data folder, found by the image reference that names their digest."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from stoker_sdk.data_dir import DataDir
from stoker_sdk.errors import BadInput
from stoker_sdk.function import LOCAL_REGISTRY, FunctionSpec

CONTAINER = "docker:"
"""Before an image: it is a container's, even where its function names a program that might run without one."""

_REFERENCE = re.compile(re.escape(LOCAL_REGISTRY) + r"/[a-z0-9][-a-z0-9.]*@sha256:([0-9a-f]{64})")

MODES = ("python", "native", "http", "streaming", "serializing", "classic", "static")
"""What the watchdog can run here."""


_HOST_MODES = ("streaming", "serializing", "http", "classic")


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


def is_container(spec: FunctionSpec, host_programs: bool) -> bool:
    """Whether its replicas are containers: by its image, unless a program of this machine may run instead."""
    if spec.image.startswith(CONTAINER):
        return True
    return not spec.image.startswith(f"{LOCAL_REGISTRY}/") and not (host_programs and program_of(spec))


def artefact_of(data: DataDir, spec: FunctionSpec) -> tuple[str, Artefact]:
    """What a function's processes are made of: its artefact with the digest, or a program of this machine, without one.

    Raises `BadInput` when it cannot be run here.
    """
    if spec.image.startswith(f"{LOCAL_REGISTRY}/"):
        return read_artefact(data, spec.image)
    mode = (spec.env_vars or {}).get("mode", "") or "streaming"
    if mode not in _HOST_MODES:
        raise BadInput(f"mode is {mode[:40]!r}: a program of this machine runs in {', '.join(_HOST_MODES)}")
    return "", Artefact(spec.service, mode=mode, fprocess=program_of(spec))


def program_of(spec: FunctionSpec) -> str:
    """The command of a function that names one: `function_process` wins (contract section 8.1)."""
    variables = spec.env_vars or {}
    return variables.get("function_process", "") or spec.env_process or variables.get("fprocess", "")


def digest_of(image: str) -> str:
    """The hex digest in a local image reference. Raises `BadInput` for what is none."""
    match = _REFERENCE.fullmatch(image)
    if match is None:
        raise BadInput(
            f"image {image[:200]!r} is none that was built here: `stoker up` and `stoker build` answer "
            f"{LOCAL_REGISTRY}/NAME@sha256:…"
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
