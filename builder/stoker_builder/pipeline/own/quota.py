"""What the repositories of one owner may keep together, looked at before each push."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from stoker_builder.bounds import size_text
from stoker_builder.pipeline.own.repositories import Repository, run_git
from stoker_builder.usage import used_below
from stoker_sdk.errors import StokerError, TooLarge

log = logging.getLogger("stoker.pipeline")

_UNREACHABLE: Final = "10.minutes.ago"
"""So old is nothing that a push which goes on right now has brought."""
_SECONDS: Final = 300.0


async def check_quota(repository: Repository, most: int) -> None:
    """Raises `TooLarge` where its owner has more than `most` bytes, when all that no ref leads to has been removed."""
    if await _kept(repository) <= most:
        return
    if repository.exists:
        try:
            await run_git(repository, "gc", "--quiet", f"--prune={_UNREACHABLE}", seconds=_SECONDS)
        except StokerError as error:
            log.warning("%s cannot be tidied: %s", repository, error)
    if await _kept(repository) > most:
        raise TooLarge(
            f"the repositories of {repository.owner} have more than {size_text(most)} together: remove one of them, or "
            "raise --max-repositories"
        )


async def _kept(repository: Repository) -> int:
    used = await asyncio.to_thread(used_below, repository.path.parent)
    return used.disk
