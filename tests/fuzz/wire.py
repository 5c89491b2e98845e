"""Bytes to the proxies: the strategy and the judge are those of `test_proxy_hostile`."""

from __future__ import annotations

from rounds import play
from running_platform import Platform
from test_proxy_hostile import HANDLER, NAME, assert_answered_soundly, hostile_pieces


def prepare(platform: Platform) -> None:
    platform.deploy(NAME, HANDLER)


def fuzz(platform: Platform) -> int:
    return play(hostile_pieces(), lambda pieces: assert_answered_soundly(platform, pieces), 40)
