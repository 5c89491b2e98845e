"""Stage 6: the artefact, a read-only folder named by the hash of everything that went into it.

Its shape, which the local provider reads: `artefact.json` (`Artefact`), and beside it what the language's `assemble`
has put there: the template's own modules and the handler's folder, or a program.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from stoker_builder.plan import Plan
from stoker_builder.tree import close_tree, make_durable
from stoker_sdk.units import now_rfc3339

MANIFEST = "artefact.json"


class Artefact(msgspec.Struct, frozen=True, rename="camel"):
    """The content of `artefact.json`. `digest` is `sha256:` and 64 hex digits; `environment` the digits or
    empty.
    """

    name: str
    template: str
    digest: str
    mode: str
    handler: str
    environment: str
    fprocess: str
    python: str
    created_at: str


def write_manifest(plan: Plan, folder: Path) -> None:
    """What the local provider reads of the function."""
    manifest = Artefact(
        name=plan.request.name,
        template=plan.template.name,
        digest=f"sha256:{plan.digest}",
        mode=plan.template.mode,
        handler=plan.template.handler,
        environment=plan.environment,
        fprocess=plan.template.fprocess,
        python=plan.language.python(),
        created_at=now_rfc3339(),
    )
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


def publish(folder: Path, final: Path, group: int | None) -> None:
    """Close the folder and put it in its place at once."""
    final.parent.mkdir(exist_ok=True)
    final.parent.chmod(0o711)
    close_tree(folder, group)
    make_durable(folder)
    folder.rename(final)
