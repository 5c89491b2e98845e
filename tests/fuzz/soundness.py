"""What must be true of a platform after every round, whatever was sent to it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from running_platform import Platform, wait_for

from stoker_sdk.names import LABEL_PATTERN, SUBDOMAIN_PATTERN

_TRACEBACK = "Traceback (most recent call last)"


class Watch:
    """Looks at the processes, the log and the files of a platform."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._pids = platform.pids()
        self._read = 0
        self._beside = set(os.listdir(platform.folder))

    def check(self) -> None:
        """Raises `AssertionError` for what is not as it was."""
        platform = self._platform
        pids, self._pids = self._pids, platform.pids()
        assert self._pids == pids, f"processes ended: {pids} are now {self._pids}\n{platform.log[-3000:]}"
        wait_for(lambda: platform.call("hostile").status == 200, "an answer of a function")
        self._check_log()
        assert set(os.listdir(platform.folder)) == self._beside
        check_names(platform.data.functions, "*/*.json", LABEL_PATTERN, ".json")
        check_names(platform.data.namespaces, "*", LABEL_PATTERN, ".json")
        check_names(platform.data.secrets, "*/*", SUBDOMAIN_PATTERN, "")

    def _check_log(self) -> None:
        new, self._read = self._platform.log[self._read :], len(self._platform.log)
        at = new.find(_TRACEBACK)
        assert at < 0, f"a traceback in the log:\n{new[max(0, at - 300) : at + 3000]}"


def check_names(folder: Path, pattern: str, name: str, suffix: str) -> None:
    for path in folder.glob(pattern):
        assert re.fullmatch(name, path.name.removesuffix(suffix)), f"{path} was written"
