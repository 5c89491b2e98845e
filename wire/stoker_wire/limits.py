"""How much of everything a connection may use, in one value, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes are in bytes, times in seconds."""

    head: int = 64 * 1024
    """All header lines together, of a request or of an answer: more than any browser sends, little enough to hold for
    10,000 connections. Chunk extensions and trailers, which are thrown away, are bounded by it as well."""
    request_line: int = 16 * 1024
    """Twice what servers commonly accept, so that a proxy in front of us refuses first."""
    header_wait: float = 10.0
    """A head that takes longer to arrive is an attack or a dead peer."""
    body_wait: float = 60.0
    """A body of which no byte has come for so long, while we were ready to read it, does not come any more."""
    idle: float = 60.0
    """Keep-alive without a request; the customary value of load balancers, which should close first."""
    linger: float = 2.0
    """After an early answer we read on for so long, because closing at once would destroy the answer on its way."""
    pipelined: int = 1000
    """Requests that wait on one connection for the answer to an earlier one; no client has use for more."""
    stalled_write: float = 60.0
    """A client that has not taken a byte for so long is given up."""
    dial: float = 3.0
    """Connecting to a replica, on this machine or in this cluster."""
    pooled_idle: float = 30.0
    """An unused pooled connection; shorter than `idle`, so that our side closes first and no request meets a close."""

    @property
    def shortest_wait(self) -> float:
        """What a server's clock must be able to tell apart, in seconds."""
        return min(self.header_wait, self.body_wait, self.idle, self.linger, self.stalled_write)
