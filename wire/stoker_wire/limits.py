"""How much of everything a connection may use, in one value, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes are in bytes, times in seconds."""

    head: int = 64 * 1024
    """All header lines together: more than any browser sends, little enough to hold for 10,000 connections."""
    request_line: int = 16 * 1024
    """Twice what servers commonly accept, so that a proxy in front of us refuses first."""
    header_wait: float = 10.0
    """A head that takes longer to arrive is an attack or a dead peer."""
    idle: float = 60.0
    """Keep-alive without a request; the customary value of load balancers, which should close first."""
    linger: float = 2.0
    """After an early answer we read on for so long, because closing at once would destroy the answer on its way."""
    stalled_write: float = 60.0
    """A client that has not taken a byte for so long is given up."""
    dial: float = 3.0
    """Connecting to a replica, on this machine or in this cluster."""
    pooled_idle: float = 30.0
    """An unused pooled connection; shorter than `idle`, so that our side closes first and no request meets a close."""
