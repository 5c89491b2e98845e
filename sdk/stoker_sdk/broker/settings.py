"""Which broker, and how to prove oneself to it: a file of mode 0600 in the run folder, because everybody can read a
command line.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class BrokerSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the broker is. What is secret stands in files of the user's own, or is a token made for this run.

    `relaxed`: the broker acknowledges before the disk has a message, so that batches would save nothing.
    """

    url: str
    token: str = ""
    user: str = ""
    password_file: str = ""
    token_file: str = ""
    creds: str = ""
    ca: str = ""
    relaxed: bool = False


def read_settings(path: Path) -> BrokerSettings:
    return msgspec.json.decode(path.read_bytes(), type=BrokerSettings)
